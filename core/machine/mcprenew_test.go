package machine

import (
	"sync"
	"testing"
	"time"

	"capsem/core/mcp"
	"capsem/core/proto"
)

func TestCallsWaitForOneRenewal(t *testing.T) {
	asked := make(chan []proto.RefusedToken, 100)
	c := newCredentials()
	c.tell = func(all []proto.RefusedToken) { asked <- all }
	name, first, second := mcp.LoginSecret("web"), "the-first-token", "the-second-token"
	c.setServers(map[string]proto.Secret{name: proto.Secret(first)}, nil)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := c.Renew(t.Context(), name, mcp.Mark(first)); err != nil {
				t.Error(err)
			}
		})
	}
	if got := <-asked; len(got) != 1 || got[0] != (proto.RefusedToken{Name: name, Mark: mcp.Mark(first), Number: 1}) {
		t.Errorf("asked for %+v", got)
	}
	c.setServers(map[string]proto.Secret{name: proto.Secret(second)}, nil)
	all.Wait()
	// One that comes late is not in the way.
	if err := c.Renew(t.Context(), name, mcp.Mark(first)); err != nil || len(asked) != 0 {
		t.Errorf("%v, asked %d times more", err, len(asked))
	}
	go func() {
		<-asked
		c.setServers(map[string]proto.Secret{name: proto.Secret(second)}, map[string]string{name: mcp.Mark(second)})
	}()
	for range 2 { // the second is answered without asking
		if err := c.Renew(t.Context(), name, mcp.Mark(second)); err == nil {
			t.Error("there is another token")
		}
	}
	// After a while it is tried again.
	c.mu.Lock()
	old := c.asked[name]
	old.at = old.at.Add(-2 * renewAgain)
	c.asked[name] = old
	c.mu.Unlock()
	over := make(chan error, 1)
	go func() { over <- c.Renew(t.Context(), name, mcp.Mark(second)) }()
	if got := <-asked; got[0].Number != 3 {
		t.Errorf("asked for %+v", got)
	}
	c.setServers(map[string]proto.Secret{name: "the-third-token"}, nil)
	select {
	case err := <-over:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("nobody was woken")
	}
	if err := c.Renew(t.Context(), "none", "mark"); err == nil {
		t.Error("a token that there is not was renewed")
	}
}
