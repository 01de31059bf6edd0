//go:build linux

package terminal

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

// manager runs a Manager whose shells are plain and quiet.
func manager(t *testing.T) (*Manager, link.Session) {
	t.Helper()
	host, guest := guesttest.Sessions(t)
	m := New(nil, guesttest.Log())
	m.home, m.bashrc = t.TempDir(), t.TempDir()+"/bashrc"
	if err := os.WriteFile(m.bashrc, []byte("PS1='> '\nbind 'set enable-bracketed-paste off' 2>/dev/null\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.SetEnv(map[string]string{"PATH": os.Getenv("PATH"), "FROM_VM": "vm", "HISTFILE": "/dev/null"})
	t.Cleanup(m.Close)
	guesttest.Serve(t, guest, proto.PortTerminal, func(ctx context.Context, st link.Stream) { m.Serve(ctx, st) })
	return m, host
}

func view(t *testing.T, host link.Session, name string, cols, rows uint16) link.Stream {
	t.Helper()
	return guesttest.Open(t, host, proto.PortTerminal, &proto.TerminalOpen{
		Session: name, Size: proto.WindowSize{Cols: cols, Rows: rows}, Env: map[string]string{"FROM_VIEWER": "viewer"},
	})
}

func typeLine(t *testing.T, st link.Stream, line string) {
	t.Helper()
	guesttest.Send(t, st, proto.KindStdin, line+"\n")
}

func TestAShellHasATerminalAnEnvironmentAndAnEnd(t *testing.T) {
	t.Parallel()
	m, host := manager(t)
	st := view(t, host, "", 90, 30)
	typeLine(t, st, "echo $FROM_VM-$FROM_VIEWER; tty; stty size; exit 7")
	got := guesttest.Collect(t, st)
	for _, want := range []string{"vm-viewer", "/dev/pts/", "30 90"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("%q is not in %q", want, got.Stdout)
		}
	}
	if got.Exit.Code != 7 {
		t.Errorf("ended with %+v", got.Exit)
	}
	guesttest.Eventually(t, "the session is over", func() bool { return m.Running() == 0 })
}

func TestTheWindowFollowsItsViewer(t *testing.T) {
	t.Parallel()
	_, host := manager(t)
	st := view(t, host, "s", 80, 24)
	typeLine(t, st, "trap 'stty size' WINCH; echo rea''dy")
	guesttest.Until(t, st, "ready\r\n")
	size, err := json.Marshal(proto.WindowSize{Cols: 132, Rows: 43})
	if err != nil {
		t.Fatal(err)
	}
	guesttest.Send(t, st, proto.KindResize, string(size))
	typeLine(t, st, "stty size")
	guesttest.Until(t, st, "43 132")
}

func TestALateViewerSeesTheLast64KiBThenEveryByte(t *testing.T) {
	t.Parallel()
	_, host := manager(t)
	first := view(t, host, "s", 80, 24)
	typeLine(t, first, "stty -echo; for i in {10000..29999}; do echo line-$i; done; echo all''done")
	guesttest.Until(t, first, "alldone")
	if err := first.Close(); err != nil { // the shell goes on without viewers
		t.Fatal(err)
	}
	late := view(t, host, "s", 80, 24)
	replay := guesttest.Until(t, late, "alldone").Stdout
	if len(replay) < replaySize || len(replay) > replaySize+1024 || strings.Contains(replay, "line-10000") || !strings.Contains(replay, "line-29999") {
		t.Errorf("replayed %d bytes, %q...", len(replay), replay[:min(len(replay), 60)])
	}
	typeLine(t, late, "echo still al''ive")
	guesttest.Until(t, late, "still alive")
}

func TestViewersOfOneSessionSeeTheSame(t *testing.T) {
	t.Parallel()
	m, host := manager(t)
	a, b := view(t, host, "s", 80, 24), view(t, host, "s", 80, 24)
	guesttest.Until(t, b, "> ") // attached
	typeLine(t, a, "echo seen by bo''th; exit")
	for _, st := range []link.Stream{a, b} {
		if got := guesttest.Collect(t, st); !strings.Contains(got.Stdout, "seen by both") || got.Exit.Code != 0 {
			t.Errorf("%q, %+v", got.Stdout, got.Exit)
		}
	}
	guesttest.Eventually(t, "the session is over", func() bool { return m.Running() == 0 })
}

func TestHostileViewersAreTurnedAway(t *testing.T) {
	t.Parallel()
	m, host := manager(t)
	ok := proto.WindowSize{Cols: 80, Rows: 24}
	for name, open := range map[string]proto.TerminalOpen{
		"session":  {Session: "../x", Size: ok},
		"size":     {Size: proto.WindowSize{}},
		"term":     {Size: ok, Term: "a b"},
		"variable": {Size: ok, Env: map[string]string{"LD_PRELOAD": "/x"}},
	} {
		got := guesttest.Collect(t, guesttest.Open(t, host, proto.PortTerminal, &open))
		if got.Exit.Code != 126 || got.Exit.Error == "" {
			t.Errorf("%s: %+v", name, got.Exit)
		}
	}
	st := view(t, host, "s", 80, 24)
	guesttest.Until(t, st, "> ")
	guesttest.Send(t, st, proto.KindResize, "{")
	for _, err := st.Read(make([]byte, 1024)); err == nil; {
		_, err = st.Read(make([]byte, 1024))
	}
	if m.Running() != 1 {
		t.Error("a viewer's garbage has ended the shell")
	}
}

func TestCloseEndsShellsAndWhatTheyStarted(t *testing.T) {
	t.Parallel()
	m, host := manager(t)
	st := view(t, host, "s", 80, 24)
	typeLine(t, st, "sleep 1000 & echo chi''ld-$!-en''d")
	out := guesttest.Until(t, st, "-end").Stdout
	_, rest, _ := strings.Cut(out[strings.LastIndex(out, "child-"):], "-")
	pid, _, _ := strings.Cut(rest, "-")
	m.Close()
	if m.Running() != 0 {
		t.Error("a session is left")
	}
	guesttest.Eventually(t, "the shell's job ends", func() bool { return guesttest.Gone(guesttest.PID(t, pid)) })
}

func TestAPeekShowsThePastAndDisturbsNothing(t *testing.T) {
	t.Parallel()
	m, host := manager(t)
	peek := func() guesttest.Output {
		return guesttest.Collect(t, guesttest.Open(t, host, proto.PortTerminal, &proto.TerminalOpen{Peek: true, Size: proto.WindowSize{Cols: 10, Rows: 10}}))
	}
	if got := peek(); got.Stdout != "" || got.Exit.Code != 0 || m.Running() != 0 {
		t.Errorf("without a session: %+v, %d sessions run", got, m.Running())
	}
	st := view(t, host, "", 90, 30)
	typeLine(t, st, "echo seen-$((40+2))")
	guesttest.Eventually(t, "the past is shown", func() bool { return strings.Contains(peek().Stdout, "seen-42") })
	typeLine(t, st, "stty size; exit 7")
	if got := guesttest.Collect(t, st); !strings.Contains(got.Stdout, "30 90") || got.Exit.Code != 7 {
		t.Errorf("the viewer got %+v", got)
	}
}
