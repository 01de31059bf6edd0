package share

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A hostile kernel closes a file that it writes to, and asks for its attributes. The write waits for the node, and who has that must
// not wait for the handle, which waits for the write.
func TestWhoUsesAHandleThatIsBeingClosedDoesNotWait(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(root+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := statAt(s.rootFD, "f")
	if err != nil {
		t.Fatal(err)
	}
	n, _, err := s.table.attach(nil, "", &st)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openHow(s.rootFD, "f", unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.addHandle(n, f, unix.O_RDWR, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, written, err := h.use()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); s.shut(s.dropHandle(h.id, n.id, false)) }()
	tried := make(chan error)
	limit := time.After(20 * time.Second)
	for err = nil; err == nil; {
		go func() {
			f, err := h.dup()
			f.close()
			tried <- err
		}()
		select {
		case err = <-tried:
		case <-limit:
			t.Fatal("one waits for the other")
		}
	}
	if !errors.Is(err, unix.ESTALE) {
		t.Error(err)
	}
	written()
	<-closed
}
