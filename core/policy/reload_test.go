package policy

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestAPolicyIsExchangedWhileItIsUsed(t *testing.T) {
	const when = "\nwhen = 'path.startsWith(\"/a\") && query[\"q\"].size() == 1'"
	var current atomic.Pointer[Policy]
	open := compiledFrom(t, "user", rule("allow", `hosts = ["x.com"]`+when))
	shut := compiledFrom(t, "user", rule("deny", `hosts = ["x.com"]`+when))
	current.Store(open)
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			r := Request{Host: "X.com", Port: 443, Scheme: "https", Method: "GET", Path: "/a%2fb", Query: "q=1"}
			for range 500 {
				p := current.Load()
				v := p.Decide(&r)
				if want := map[*Policy]Effect{open: Allow, shut: Deny}[p]; v.Effect != want || v.Err != "" {
					t.Errorf("%+v, want %s", v, want)
					return
				}
				p.Refusal(v, &r)
			}
		})
	}
	for range 200 {
		current.Store(shut)
		current.Store(open)
	}
	users.Wait()
}
