package git

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func read(method, target string) (endpoint, string) {
	u, err := url.Parse("https://git.test" + target)
	if err != nil {
		return endpoint{}, "no URL"
	}
	return readEndpoint(&http.Request{Method: method, URL: u, Header: http.Header{}})
}

func TestRequestsOfGitAreKnownByTheirPaths(t *testing.T) {
	for line, want := range map[string]endpoint{
		"GET /a/b.git/info/refs?service=git-upload-pack":  {refs, upload, "a/b"},
		"GET /a/b/info/refs?service=git-receive-pack":     {refs, receive, "a/b"},
		"GET /a/b/info/refs":                              {refs, "", "a/b"},
		"POST /a/b.GIT/git-upload-pack":                   {uploadPack, "", "a/b"},
		"POST /a/b/c/d.git/git-receive-pack":              {receivePack, "", "a/b/c/d"},
		"POST /a/b.git/info/lfs/objects/batch":            {lfsBatch, "", "a/b"},
		"POST /a/b.git/info/lfs/locks/7/unlock":           {lfsOther, "", "a/b"},
		"GET /a/b/tree/main/info":                         {},
		"GET /a/b/blob/main/git-receive-pack.md":          {},
		"POST /a/b":                                       {},
		"POST /a/git-receive-pack/../b":                   {},
		"GET /search?q=service%3Dgit-receive-pack&x=info": {},
	} {
		method, target, _ := strings.Cut(line, " ")
		if got, bad := read(method, target); bad != "" || got != want {
			t.Errorf("%s: %+v %q", line, got, bad)
		}
	}
	for _, line := range []string{
		"GET /a/b/info/refs?service=git-upload-pack&service=git-receive-pack", "GET /a/b/info/refs?service=git%2dreceive-pack", "GET /a/b/info/refs?Service=git-receive-pack",
		"GET /a/b/info/refs?service=git-receive-pack;x", "POST /a/b/git-receive-pack/", "POST /a//b/git-receive-pack", "POST /a/b/%67it-receive-pack", "POST /a/b/%2567it-receive-pack",
		"POST /a/b/git-receive-pack;v=1", "POST /a/c/../b/git-receive-pack", "POST /a/b/GIT-RECEIVE-PACK", "POST /a/b%5cgit-receive-pack", "PUT /a/b/git-receive-pack",
		"POST /a/%62/info/lfs/objects/batch", "PUT /a/b.git/objects/aa/bb", "MOVE /a/b%2egit/x", "LOCK /repo/refs/heads/main",
	} {
		method, target, _ := strings.Cut(line, " ")
		if got, bad := read(method, target); bad == "" {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// FuzzReadEndpoint holds that no path which some server may take for a push passes for something else.
func FuzzReadEndpoint(f *testing.F) {
	f.Add("/a/b/git-receive-pack")
	f.Add("/a/%2567it-receive-pack;x/..")
	f.Fuzz(func(t *testing.T, target string) {
		if !strings.HasPrefix(target, "/") {
			return
		}
		e, bad := read(http.MethodPost, target)
		if bad != "" {
			return
		}
		u, err := url.Parse("https://git.test" + target)
		if err != nil {
			return
		}
		for _, path := range []string{u.Path, u.EscapedPath()} {
			if strings.HasSuffix(path, "/git-receive-pack") && e.place != receivePack {
				t.Fatalf("%q is %+v", target, e)
			}
		}
		if strings.HasPrefix(e.repo, "/") || strings.ContainsAny(e.repo, "%;\\") {
			t.Fatalf("%q: repository %q", target, e.repo)
		}
	})
}
