package service_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/service/servicetest"
)

// book is a log that can be read while it is written.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestVMsGetPlaceholdersAndTheValueIsNowhere(t *testing.T) {
	home := servicetest.Home(t)
	opts := servicetest.Options(t, home)
	log := &book{}
	opts.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, _ := servicetest.Start(t, opts)
	first, second := "gh"+"p_"+strings.Repeat("Va1", 12), "gh"+"p_"+strings.Repeat("wB2", 12)
	early := create(t, s, api.ProvisionRequest{Name: "early"})
	if got := say(t, s, early, "env GH_TOKEN"); got != "\n" {
		t.Errorf("before there is a secret: %q", got)
	}
	info, err := s.SetSecret(t.Context(), "hub", api.SecretRequest{Value: first})
	if err != nil || info.Kind != "github" || len(info.Hosts) == 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	one := say(t, s, early, "env GH_TOKEN")
	if !strings.HasPrefix(one, "gh"+"p_") || len(one) != len(first)+1 || strings.Contains(one, first) {
		t.Errorf("a VM that runs has %q", one)
	}
	if _, err := s.Fork(t.Context(), early, api.ForkRequest{Image: "image"}); err != nil {
		t.Fatal(err)
	}
	child, other := create(t, s, api.ProvisionRequest{Name: "child", Image: "image"}), create(t, s, api.ProvisionRequest{Name: "other"})
	if got := say(t, s, child, "env GH_TOKEN"); got != one {
		t.Errorf("a fork has %q, its parent %q", got, one)
	}
	if got := say(t, s, other, "env GH_TOKEN"); got == one || len(got) != len(one) {
		t.Errorf("another VM has %q", got)
	}
	if _, err := s.SetSecret(t.Context(), "hub", api.SecretRequest{Value: second}); err != nil {
		t.Fatal(err)
	}
	if got := say(t, s, early, "env GH_TOKEN"); got != one {
		t.Errorf("with a new value the placeholder is %q", got)
	}
	if _, err := s.SetSecret(t.Context(), "again", api.SecretRequest{Value: second}); !fault.Is(err, fault.Conflict) || strings.Contains(fault.Line(err), second) {
		t.Errorf("the same value twice: %v", err)
	}
	list, err := s.Secrets()
	if err != nil || len(list.Secrets) != 1 || len(list.Presets) != 1 || list.Presets[0] != "github" {
		t.Errorf("%+v, %v", list, err)
	}
	for _, value := range []string{first, second} {
		nowhere(t, home.Dir(), log.String(), value)
	}
	if err := s.RemoveSecret(t.Context(), "hub"); err != nil {
		t.Fatal(err)
	}
	if got := say(t, s, early, "env GH_TOKEN"); got != "\n" {
		t.Errorf("after it is removed: %q", got)
	}
}

// nowhere looks for a value in every file of an installation, in the log, and in what the system shows of processes.
func nowhere(t *testing.T, home, log, value string) {
	t.Helper()
	if strings.Contains(log, value) {
		t.Error("the value is in the log")
	}
	looked := 0
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		looked++
		if bytes.Contains(text, []byte(value)) {
			t.Errorf("the value is in %s", path)
		}
		return err
	})
	if err != nil || looked < 5 {
		t.Errorf("looked into %d files: %v", looked, err)
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(value)) { // some belong to others, or have ended
				t.Errorf("the value is in %s", name)
			}
		}
	}
}
