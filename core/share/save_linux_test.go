package share

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A kernel forgets a directory while a name in it is looked up, and a file while it is opened.
func TestWhatWasForgottenMeanwhileIsNotSaved(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/d", 0o755), os.WriteFile(root+"/d/f", nil, 0o600), os.WriteFile(root+"/g", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := func(parent *node, path, name string) *node {
		st, err := statAt(s.rootFD, path)
		if err != nil {
			t.Fatal(err)
		}
		n, _, err := s.table.attach(parent, name, &st)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	top := s.table.byID[1]
	dir, file := at(top, "d", "d"), at(top, "g", "g")
	s.table.forget(dir.id, 1)
	s.table.forget(file.id, 1)
	at(dir, "d/f", "f")
	f, err := openHow(s.rootFD, "g", unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.addHandle(file, f, unix.O_RDWR, false, 0); err != nil {
		t.Fatal(err)
	}
	state, err := s.Save(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Root: root, State: state})
	if err != nil {
		t.Fatal("the VM does not go on:", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestSavingWaitsNoLongerThanItMay(t *testing.T) {
	s, err := New(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.gate.RLock() // a request that does not end
	ctx, cancel := context.WithCancel(t.Context())
	saved := make(chan error)
	go func() { _, err := s.Save(ctx); saved <- err }()
	cancel()
	if err := <-saved; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.gate.RUnlock()
	if _, err := s.Save(t.Context()); err != nil {
		t.Error("after that request:", err)
	}
	if _, err := s.Save(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !s.gate.TryRLock() {
		t.Fatal("what was given up holds the gate")
	}
	s.gate.RUnlock()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
