package share

import (
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watched is a server whose root is watched.
func watched(t *testing.T) (*Server, *node) {
	t.Helper()
	s, err := New(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	root := s.table.byID[1]
	s.watcher.ensure(root, file{fd: s.rootFD, lent: true})
	if root.watch == 0 {
		t.Skip("inotify does not work here")
	}
	return s, root
}

func TestNamesThatDoNotExistAreCachedForLongWhileTheyAreRemembered(t *testing.T) {
	s, root := watched(t)
	const more = 1000
	for i := range maxAbsent + more {
		if valid := s.absent(root, strconv.Itoa(i)); valid != longValid {
			t.Fatalf("name %d is cached for %v", i, valid)
		}
	}
	if n := len(s.table.absent.in); n != maxAbsent || len(s.table.absent.queue) != maxAbsent {
		t.Errorf("%d names are remembered", n)
	}
	for i := range more { // what is remembered no more is told
		if got, ok := s.invals.next(); !ok || got != (inval{root.id, strconv.Itoa(i)}) {
			t.Fatalf("told of %v, not %d", got, i)
		}
	}
	if got, ok := s.invals.next(); ok {
		t.Errorf("told of %v", got)
	}
}

func TestAGuestThatIsToldNothingCachesNothingForLong(t *testing.T) {
	s, root := watched(t)
	last := time.Duration(0)
	for i := range maxAbsent + maxInvals + 1000 {
		last = s.absent(root, strconv.Itoa(i))
	}
	if last != shortValid {
		t.Errorf("the last name is cached for %v", last)
	}
	if len(s.invals.in) > maxInvals || len(s.table.absent.in) > maxAbsent {
		t.Errorf("%d wait, %d are remembered", len(s.invals.in), len(s.table.absent.in))
	}
}

func TestWhatIsMadeWhereEventsWereLostIsTold(t *testing.T) {
	s, root := watched(t)
	s.table.mu.Lock()
	s.watcher.remove(root) // no event comes any more
	root.watch, s.watcher.limit = 1, 0
	s.table.mu.Unlock()
	for _, name := range []string{"made", "not"} {
		s.absent(root, name)
	}
	if err := os.WriteFile(s.config.Root+"/made", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.sweepAbsent()
	if got, ok := s.invals.next(); !ok || got.name != "made" {
		t.Errorf("told of %v", got)
	}
	if got, ok := s.invals.next(); ok {
		t.Errorf("told of %v", got)
	}
	s.table.mu.Lock()
	root.watch = 0
	s.table.mu.Unlock()
	// and where nothing is watched, of everything
	s.sweepAbsent()
	if got, ok := s.invals.next(); !ok || got.name != "not" {
		t.Errorf("told of %v", got)
	}
}

func TestANameThatIsMadeIsRememberedNoMore(t *testing.T) {
	s, root := watched(t)
	s.absent(root, "f")
	st, err := statFD(s.rootFD)
	if err != nil {
		t.Fatal(err)
	}
	st.Ino, st.Mode = 1e9, unix.S_IFREG
	if _, _, err := s.table.attach(root, "f", &st); err != nil {
		t.Fatal(err)
	}
	if len(s.table.absent.in) != 0 {
		t.Error("it is still remembered")
	}
}
