package snapshot

import "capsem/core/api"

// maxListed bounds how many changes one answer has.
const maxListed = 100_000

// compare tells of each path that differs between two lists of entries, in their order, until it is told to stop. A directory that came
// or went is told of only when it is empty: what is in it says the rest.
func compare(old, now []entry, tell func(was, is *entry) bool) {
	for len(old) > 0 || len(now) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = treeOrder(old[0].path, now[0].path)
		}
		var was, is *entry
		if order <= 0 {
			was = &old[0]
		}
		if order >= 0 {
			is = &now[0]
		}
		if tells(was, is, old, now) && !tell(was, is) {
			return
		}
		if was != nil {
			old = old[1:]
		}
		if is != nil {
			now = now[1:]
		}
	}
}

func tells(was, is *entry, old, now []entry) bool {
	switch {
	case was == nil:
		return is.kind != kindDir || span(now[:min(2, len(now))]) == 1
	case is == nil:
		return was.kind != kindDir || span(old[:min(2, len(old))]) == 1
	}
	return !was.same(is)
}

// changeOf names what happened to a path; created is the word for what is new.
func changeOf(was, is *entry, created string) api.SnapshotChange {
	switch {
	case is == nil, was != nil && is.kind == kindDir && was.kind != kindDir:
		return change(was, api.OpDeleted)
	case was == nil, was.kind == kindDir && is.kind != kindDir:
		return change(is, created)
	}
	return change(is, api.OpModified)
}

// equal reports whether two lists hold the same.
func equal(a, b []entry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].path != b[i].path || !a[i].same(&b[i]) {
			return false
		}
	}
	return true
}
