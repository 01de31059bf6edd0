package snapshot

import (
	"slices"

	"capsem/core/fault"
)

// op is one step of a revert.
type op struct {
	path string
	// tree is what is to be there: an entry, and all below it. Empty: nothing.
	tree []entry
	// meta says that a directory stays and only gets the mode and attributes of its entry.
	meta bool
}

// plan says what to do so that what is at a path and below it becomes what it is in the target. Paths that need nothing are not in it.
func plan(live, target *manifest, path string) ([]op, error) {
	want := target.under(path)
	first, err := missing(live, target, path)
	if err != nil {
		return nil, err
	}
	if first != "" {
		if len(want) == 0 {
			return nil, nil // it is not there, as it should be
		}
		return []op{{path: first, tree: chain(target, first, path)}}, nil
	}
	var ops []op
	have := live.under(path)
	for len(have) > 0 || len(want) > 0 {
		order := 0
		switch {
		case len(want) == 0:
			order = -1
		case len(have) == 0:
			order = 1
		default:
			order = treeOrder(have[0].path, want[0].path)
		}
		switch {
		case order < 0:
			ops = append(ops, op{path: have[0].path})
			have = have[span(have):]
		case order > 0:
			n := span(want)
			ops = append(ops, op{path: want[0].path, tree: want[:n]})
			want = want[n:]
		case have[0].kind == kindDir && want[0].kind == kindDir:
			if !have[0].sameMeta(&want[0]) {
				ops = append(ops, op{path: want[0].path, tree: want[:1], meta: true})
			}
			have, want = have[1:], want[1:]
		default:
			n := span(want)
			if !have[0].same(&want[0]) {
				ops = append(ops, op{path: want[0].path, tree: want[:n]})
			}
			have, want = have[span(have):], want[n:]
		}
	}
	return ops, nil
}

// span is how many entries from the first on are it or below it.
func span(entries []entry) int {
	n := 1
	for n < len(entries) && below(entries[n].path, entries[0].path) {
		n++
	}
	return n
}

// missing is the topmost directory above a path that the target has and that is not there now, "" for none.
func missing(live, target *manifest, path string) (string, error) {
	first := ""
	for up := parent(path); up != ""; up = parent(up) {
		e := live.find(up)
		if e == nil {
			first = up
		} else if e.kind != kindDir && target.find(path) != nil {
			return "", fault.New(fault.Conflict, "%s is no directory now", shown(up)).WithHint("revert %s first", shown(up))
		}
	}
	return first, nil
}

// chain is a path and all below it, with the bare directories from the given one on that lead to it.
func chain(target *manifest, first, path string) []entry {
	var up []entry
	for at := parent(path); at != "" && below(at, first); at = parent(at) {
		if e := target.find(at); e != nil {
			up = append(up, *e)
		}
	}
	slices.Reverse(up)
	return append(up, target.under(path)...)
}

// differs reports whether a revert would do anything.
func differs(live, target *manifest, path string) bool {
	ops, err := plan(live, target, path)
	return err != nil || len(ops) > 0
}
