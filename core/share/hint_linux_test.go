package share_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// same reports whether both sides have the same attributes of a directory.
func (r *rig) same(t *testing.T, name string) bool {
	t.Helper()
	var in, on unix.Stat_t
	must(t, unix.Stat(r.in(name), &in))
	must(t, unix.Stat(r.on(name), &on))
	return in.Mode == on.Mode && in.Nlink == on.Nlink && in.Size == on.Size && in.Mtim == on.Mtim && in.Ctim == on.Ctim
}

func TestWhatIsKnownOfADirectoryIsTrueAfterManyChangesAtOnce(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.Mkdir(r.in("d"), 0o755))
	for round := range 20 {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				name := func(what string) string { return r.in("d", fmt.Sprintf("%s%d-%d", what, round, i)) }
				_ = os.WriteFile(name("f"), []byte("x"), 0o644)
				_ = os.Mkdir(name("s"), 0o755)
				_ = os.Rename(name("f"), name("g"))
				if i%2 == 0 {
					_ = os.Remove(name("s"))
				}
				_ = os.Chmod(r.in("d"), 0o700+os.FileMode(round+i)%8)
			})
		}
		all.Wait()
		if !r.same(t, "d") {
			t.Fatalf("round %d: the sides do not agree", round)
		}
	}
	soon(t, "agreement", func() bool { return r.same(t, "d") })
	in, err := os.ReadDir(r.in("d"))
	must(t, err)
	on, err := os.ReadDir(r.on("d"))
	must(t, err)
	if len(in) != len(on) || len(in) != 20*12 {
		t.Errorf("%d names in the guest, %d on the host", len(in), len(on))
	}
}

func TestWhatTheHostMakesInADirectoryOfTheGuestIsSeen(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.Mkdir(r.in("d"), 0o755))
	for i := range 30 {
		name := fmt.Sprint("n", i)
		if _, err := os.Stat(r.in("d", name)); !os.IsNotExist(err) {
			t.Fatal(name, err)
		}
		if i%3 == 0 {
			write(t, r.in("d", fmt.Sprint("own", i)), "x")
		}
		if i%4 == 1 {
			r.breakStream()
		}
		write(t, r.on("d", name), "of the host")
		soon(t, name, func() bool { _, err := os.Stat(r.in("d", name)); return err == nil })
		soon(t, "the directory's attributes", func() bool { return r.same(t, "d") })
		must(t, os.Remove(r.on("d", name)))
		soon(t, name+" to be gone", func() bool { _, err := os.Stat(r.in("d", name)); return os.IsNotExist(err) })
	}
}
