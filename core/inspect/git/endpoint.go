package git

import (
	"net/http"
	"net/url"
	"path"
	"strings"

	"capsem/core/policy"
)

// place is what of a repository a request is for.
type place uint8

const (
	elsewhere place = iota
	// refs is the list of refs, with which each conversation begins.
	refs
	uploadPack
	receivePack
	// lfsBatch is where git LFS asks for places of files, lfsOther the rest of it.
	lfsBatch
	lfsOther
)

const (
	upload  = "git-upload-pack"
	receive = "git-receive-pack"
)

// endpoint is a request as git means it.
type endpoint struct {
	place place
	// service is what the list of refs is for; "" is a client of the old protocol that only reads files.
	service string
	repo    string
}

// dav are the methods by which git of old changes files on a server that knows nothing of git.
var dav = map[string]bool{"PUT": true, "MKCOL": true, "MOVE": true, "COPY": true, "DELETE": true, "LOCK": true, "PATCH": true}

// maxDecode bounds how often a path is decoded.
const maxDecode = 4

// loose reads a path as some server might.
func loose(raw string) string {
	for range maxDecode {
		plain, err := url.PathUnescape(raw)
		if err != nil || plain == raw {
			break
		}
		raw = plain
	}
	parts := strings.Split(strings.ReplaceAll(raw, `\`, "/"), "/")
	for i, p := range parts {
		parts[i], _, _ = strings.Cut(p, ";")
	}
	return path.Clean("/" + strings.Join(parts, "/"))
}

// clean reports whether a path has one reading only.
func clean(raw string) bool {
	for i := range len(raw) {
		c := raw[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("/._~+@-", c) < 0 {
			return false
		}
	}
	return path.Clean(raw) == raw
}

// readEndpoint finds out what a request is for. bad is why it cannot be said for sure, though git may well be meant.
func readEndpoint(req *http.Request) (e endpoint, bad string) {
	raw := req.URL.EscapedPath()
	folded := strings.ToLower(loose(raw))
	var suffix string
	switch {
	case strings.HasSuffix(folded, "/info/refs"):
		e.place, suffix = refs, "/info/refs"
	case strings.HasSuffix(folded, "/"+upload):
		e.place, suffix = uploadPack, "/"+upload
	case strings.HasSuffix(folded, "/"+receive):
		e.place, suffix = receivePack, "/"+receive
	case strings.HasSuffix(folded, "/info/lfs/objects/batch"):
		e.place, suffix = lfsBatch, "/info/lfs/objects/batch"
	case strings.Contains(folded+"/", "/info/lfs/"):
		e.place = lfsOther
		_, rest, _ := strings.Cut(folded, "/info/lfs")
		suffix = "/info/lfs" + rest
	case dav[req.Method] && (strings.Contains(folded, ".git/") || strings.Contains(folded, "/refs/")):
		return e, "a push by WebDAV cannot be judged"
	case strings.HasPrefix(strings.ToLower(req.Header.Get("Content-Type")), "application/x-git-"):
		return e, "it is of git, but its path is none of git's"
	default:
		return e, ""
	}
	if !clean(raw) || e.place != lfsOther && !strings.HasSuffix(raw, suffix) {
		return e, "its path can be read in more than one way"
	}
	e.repo = strings.TrimPrefix(raw[:len(raw)-len(suffix)], "/")
	if n := len(e.repo) - len(".git"); n > 0 && strings.EqualFold(e.repo[n:], ".git") {
		e.repo = e.repo[:n]
	}
	if e.place == refs {
		if e.service, bad = service(req.URL.RawQuery); bad != "" {
			return e, bad
		}
	}
	if (e.place == uploadPack || e.place == receivePack) && req.Method != http.MethodPost {
		return e, "its method is not git's"
	}
	return e, ""
}

// service reads which service a list of refs is for.
func service(query string) (name, bad string) {
	if query == "" {
		return "", ""
	}
	values, err := url.ParseQuery(query)
	if got := values["service"]; err == nil && len(values) == 1 && len(got) == 1 && (got[0] == upload || got[0] == receive) && !strings.Contains(query, "%") {
		return got[0], ""
	}
	return "", "its query can be read in more than one way"
}

// ops are the operations that a request may belong to.
func (e *endpoint) ops() []string {
	if e.place == receivePack || e.place == lfsOther || e.service == receive {
		return []string{policy.GitPush}
	}
	return []string{policy.GitClone, policy.GitFetch}
}
