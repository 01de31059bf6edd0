//go:build linux

package proc

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/guest/guesttest"
)

// null opens /dev/null three times over.
func null(t *testing.T) [3]int {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return [3]int{fd, fd, fd}
}

func start4(t *testing.T, argv ...string) *Process {
	t.Helper()
	p, err := Start(Spec{Argv: argv, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"}, Files: null(t)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestHowAProcessEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		argv   []string
		code   int
		signal string
	}{
		"well": {[]string{"true"}, 0, ""}, "badly": {[]string{"sh", "-c", "exit 255"}, 255, ""},
		"by a signal":    {[]string{"sh", "-c", "kill -TERM $$"}, 143, "SIGTERM"},
		"by a real-time": {[]string{"sh", "-c", "kill -40 $$"}, 168, "SIG40"},
	} {
		st := start4(t, c.argv...).Wait()
		if st.Code != c.code || st.Signal != c.signal || st.DurationUS <= 0 {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

func TestSignalsAfterTheEndReachNobody(t *testing.T) {
	t.Parallel()
	p := start4(t, "true")
	p.Wait()
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.Signal(sig); err != nil {
			t.Error(err)
		}
	}
}

func TestKillReachesEveryGroupOfTheSession(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	p := start4(t, "sh", "-mc", "sleep 1000 & echo $! > "+file+".tmp; mv "+file+".tmp "+file+"; sleep 1000")
	var text []byte
	guesttest.Eventually(t, "the job runs", func() (ok bool) {
		var err error
		text, err = os.ReadFile(file)
		return err == nil
	})
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if st := p.Wait(); st.Signal != "SIGKILL" || st.Code != 137 {
		t.Errorf("%+v", st)
	}
	guesttest.Eventually(t, "the job ends", func() bool { return guesttest.Gone(guesttest.PID(t, string(text))) })
}

func TestALineOfProcStat(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		pgrp, session int
		ok            bool
	}{
		"5 (sh) S 1 12 10 0":             {12, 10, true},
		"5 (a) S 1 99 9) (x) R 1 12 10 ": {12, 10, true}, // a name that imitates the rest
		"5 (sh) S 1 0 0 0":               {0, 0, false},  // a kernel thread
		"5 (sh) S 1 1 1 0":               {0, 0, false},  // never the group of init
		"5 (sh) S 1 -1 10":               {0, 0, false},
		"5 (sh) S":                       {0, 0, false}, "": {0, 0, false}, "garbage": {0, 0, false},
	} {
		pgrp, session, ok := parseStat([]byte(text))
		if ok != want.ok || ok && (pgrp != want.pgrp || session != want.session) {
			t.Errorf("%q: %d %d %v", text, pgrp, session, ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("5 (sh) S 1 12 10 0"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if pgrp, _, ok := parseStat(stat); ok && pgrp < 2 {
			t.Errorf("%q gives group %d, which a kill would turn on everything", stat, pgrp)
		}
	})
}
