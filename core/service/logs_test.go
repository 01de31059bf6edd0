package service_test

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/service/servicetest"
)

// buffer is what a follower has been given so far.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) has(text string) func() bool {
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return strings.Contains(b.text.String(), text)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestALogIsFollowedOverItsRotationANewNameAndUpToItsLastByte(t *testing.T) {
	home := servicetest.Home(t)
	s, _ := again(t, home)
	id := create(t, s, api.ProvisionRequest{})
	var got buffer
	done := make(chan error, 1)
	go func() { done <- s.FollowLogs(t.Context(), id, 0, &got, func() error { return nil }) }()
	log := home.Session(id).ProcessLog()
	appendTo(t, log, "the first file\n")
	await(t, "the first file", got.has("the first file\n"))
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, "the second file\n")
	await(t, "the second file", got.has("the second file\n"))
	if err := s.Persist(t.Context(), id, "kept"); err != nil {
		t.Fatal(err)
	}
	log = home.Persistent("kept").ProcessLog()
	if err := os.Rename(log, log+".2"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, "the third file\n")
	await(t, "the third file", got.has("the third file\n"))
	appendTo(t, log, strings.Repeat("a lot at the end\n", 30_000)+"the last line\n")
	if _, err := s.Stop(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !got.has("the last line\n")() {
		t.Error("the end is missing")
	}
}
