package gateway

import (
	"strconv"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

func TestSubscriptionsAreCounted(t *testing.T) {
	s := subscriptions{byURI: map[string]map[*sdk.ServerSession]bool{}}
	one, two := &sdk.ServerSession{}, &sdk.ServerSession{}
	for range 3 { // again is no other
		if !s.add("a", one) || !s.add("a", two) {
			t.Fatal("there is no room")
		}
	}
	if s.count != 2 || s.drop("a", one) || s.count != 1 || !s.drop("a", two) || s.count != 0 {
		t.Errorf("%+v", s)
	}
	if !s.drop("none", one) || s.count != 0 {
		t.Errorf("%+v", s)
	}
	n := 0
	for s.add(strconv.Itoa(n), one) {
		n++
	}
	if n != maxSubscriptions || s.add("a", two) {
		t.Errorf("there are %d", n)
	}
	if s.leave(one); s.count != 0 || len(s.byURI) != 0 {
		t.Errorf("%d are left", s.count)
	}
}
