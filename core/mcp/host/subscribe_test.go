package host_test

import (
	"context"
	"slices"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

func TestSessionsHearOfWhatTheyAreSubscribedTo(t *testing.T) {
	const note = "capsem://test/test://note"
	r, _ := withServer(t, "", nil)
	listener := func() (*sdk.ClientSession, chan string) {
		heard := make(chan string, 100)
		s := r.clientOf("2025-11-25", &sdk.ClientOptions{
			ResourceUpdatedHandler: func(_ context.Context, req *sdk.ResourceUpdatedNotificationRequest) { heard <- req.Params.URI },
		})
		eventually(t, func() bool { return slices.Contains(names(t, s), "test__touch") })
		if err := s.Subscribe(t.Context(), &sdk.SubscribeParams{URI: note}); err != nil {
			t.Fatal(err)
		}
		return s, heard
	}
	one, first := listener()
	two, second := listener()
	touch := func() {
		t.Helper()
		if _, err := call(t, one, "test__touch", nil); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	if a, b := <-first, <-second; a != note || b != note {
		t.Errorf("heard of %q and %q", a, b)
	}
	// One that leaves does not take the other's with it.
	if err := one.Unsubscribe(t.Context(), &sdk.UnsubscribeParams{URI: note}); err != nil {
		t.Fatal(err)
	}
	touch()
	if got := <-second; got != note {
		t.Errorf("heard of %q", got)
	}
	if err := two.Unsubscribe(t.Context(), &sdk.UnsubscribeParams{URI: note}); err != nil {
		t.Fatal(err)
	}
	if len(first) != 0 {
		t.Error("one that has left still hears")
	}
	for _, uri := range []string{"capsem://none/test://note", "capsem://local/test://note", "test://note"} {
		if err := one.Subscribe(t.Context(), &sdk.SubscribeParams{URI: uri}); err == nil {
			t.Errorf("subscribed to %s", uri)
		}
	}
}
