package client

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
)

func TestAServiceThatDoesNotAnswerIsNotWaitedForForEver(t *testing.T) {
	mux := http.NewServeMux()
	block := make(chan struct{})
	defer close(block)
	mux.HandleFunc("GET /version", func(http.ResponseWriter, *http.Request) { <-block })
	c := serve(t, mux)
	c.wait = 50 * time.Millisecond
	if err := c.EnsureService(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Line(err), "does not answer") {
		t.Errorf("got %v", err)
	}
}

func TestWhatTheLogSaidBeforeIsNotTheReason(t *testing.T) {
	home := shortHome(t)
	if err := os.WriteFile(home.ServiceLog(), []byte("old news\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := New(home, Options{Executable: "/bin/false"}).EnsureService(t.Context())
	if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Line(err), "old news") || !strings.Contains(fault.Line(err), "exit status 1") {
		t.Errorf("got %v", err)
	}
}
