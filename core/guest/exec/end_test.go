//go:build linux

package exec

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/guest/guesttest"
	"capsem/core/proto"
)

// spawner starts a process in the background, prints its id and waits.
const spawner = "sleep 1000 & echo $!; wait"

func TestClosingTheStreamKillsTheGroup(t *testing.T) {
	t.Parallel()
	st := guesttest.Open(t, server(t), proto.PortExec, command("/", spawner))
	out := guesttest.Until(t, st, "\n")
	_ = st.Close()
	guesttest.Eventually(t, "the command ends", func() bool { return guesttest.Gone(out.Started.PID) })
	guesttest.Eventually(t, "its child ends", func() bool { return guesttest.Gone(guesttest.PID(t, out.Stdout)) })
}

func TestAJobOfAnInteractiveShellIsKilledToo(t *testing.T) {
	t.Parallel()
	req := &proto.ExecRequest{Command: "set -m; " + spawner, Dir: "/", PTY: &proto.WindowSize{Cols: 80, Rows: 24}}
	st := guesttest.Open(t, server(t), proto.PortExec, req)
	out := guesttest.Until(t, st, "\n")
	_ = st.Close()
	guesttest.Eventually(t, "the job ends", func() bool { return guesttest.Gone(guesttest.PID(t, out.Stdout)) })
}

func TestCancelWorksWhileInputIsStuck(t *testing.T) {
	t.Parallel()
	st := guesttest.Open(t, server(t), proto.PortExec, &proto.ExecRequest{Command: "echo up; exec sleep 1000", Dir: "/", Stdin: true})
	out := guesttest.Until(t, st, "up")
	go func() {
		chunk := make([]byte, proto.MaxChunk)
		for proto.WriteStreamFrame(st, proto.KindStdin, chunk) == nil {
		}
	}()
	guesttest.Eventually(t, "the command's pipe is full", func() bool { return pipeFull(out.Started.PID) })
	_ = st.Close()
	guesttest.Eventually(t, "the command ends", func() bool { return guesttest.Gone(out.Started.PID) })
}

// pipeFull reports whether nothing more fits into a process's standard input.
func pipeFull(pid int) bool {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/fd/0", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && n >= 64<<10
}

func TestSignals(t *testing.T) {
	t.Parallel()
	host := server(t)
	st := guesttest.Open(t, host, proto.PortExec, command("/", "trap 'echo caught; exit 5' INT; echo up; sleep 1000 & wait"))
	guesttest.Until(t, st, "up")
	guesttest.Send(t, st, proto.KindSignal, string(rune(unix.SIGINT)))
	if got := guesttest.Collect(t, st); got.Stdout != "caught\n" || got.Exit.Code != 5 {
		t.Errorf("got %+v, exit %+v", got, got.Exit)
	}
	st = guesttest.Open(t, host, proto.PortExec, command("/", "trap '' TERM; echo up; sleep 1000"))
	guesttest.Until(t, st, "up")
	guesttest.Send(t, st, proto.KindSignal, string(rune(unix.SIGKILL)))
	if got := guesttest.Collect(t, st); got.Exit.Code != 137 || got.Exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", got.Exit)
	}
}

func TestTimeLimit(t *testing.T) {
	t.Parallel()
	req := command("/", spawner)
	req.TimeoutMS = 150
	got := execute(t, server(t), req)
	if !got.Exit.TimedOut || got.Exit.Code != 137 || !strings.Contains(got.Exit.Error, "150ms") || got.Exit.DurationUS < 150_000 {
		t.Errorf("exit %+v", got.Exit)
	}
	guesttest.Eventually(t, "its child ends", func() bool { return guesttest.Gone(guesttest.PID(t, got.Stdout)) })
}

func TestABackgroundProcessHoldsUpNobody(t *testing.T) {
	t.Parallel()
	got := execute(t, server(t), command("/", "sleep 1000 & echo $!"))
	pid := guesttest.PID(t, got.Stdout)
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	if got.Exit.Code != 0 {
		t.Errorf("exit %+v", got.Exit)
	}
	if guesttest.Gone(pid) {
		t.Error("the process in the background was killed")
	}
}

func TestABackgroundProcessThatWritesNeitherHoldsUpNorDies(t *testing.T) {
	t.Parallel()
	// More than a pipe holds, and on after the command has ended.
	got := execute(t, server(t), command("/", "(while :; do head -c 100000 /dev/zero; done) & echo pid $! >&2; head -c 200000 /dev/zero | tr '\\0' b"))
	_, text, _ := strings.Cut(got.Stderr, "pid ")
	pid := guesttest.PID(t, text)
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	if n := strings.Count(got.Stdout, "b"); n != 200_000 {
		t.Errorf("%d of the command's own 200000 bytes came", n)
	}
	if guesttest.Gone(pid) {
		t.Error("the process in the background died")
	}
}

func TestASlowReaderBlocksTheCommand(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	st := guesttest.Open(t, server(t), proto.PortExec, command("/", "exec head -c "+strconv.Itoa(size)+" /dev/zero"))
	r := proto.NewStreamReader(st)
	kind, data, err := r.Next()
	if err != nil || kind != proto.KindStarted {
		t.Fatalf("%d %q %v", kind, data, err)
	}
	pid := strings.TrimSuffix(strings.Split(string(data), `"pid":`)[1], "}")
	last, same := "", 0
	guesttest.Eventually(t, "the command stops writing", func() bool {
		now := written(pid)
		if now != "" && now == last {
			same++
		} else {
			last, same = now, 0
		}
		return same > 50
	})
	if n, err := strconv.Atoi(last); err != nil || n > 2<<20 {
		t.Errorf("it has written %s bytes that nobody has read: %v", last, err)
	}
	got := guesttest.Collect(t, st)
	if len(got.Stdout) != size || got.Exit.Code != 0 {
		t.Errorf("%d bytes came, exit %+v", len(got.Stdout), got.Exit)
	}
}

// written is how many bytes a process has written.
func written(pid string) string {
	text, err := os.ReadFile("/proc/" + pid + "/io")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "wchar: ")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func TestALostLinkLeavesTheCommandRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	host, guest := guesttest.Sessions(t)
	serveOn(t, guest)
	st := guesttest.Open(t, host, proto.PortExec,
		command(dir, "echo up; while [ ! -e go ]; do sleep 0.01; echo more; done; head -c 1000000 /dev/zero; touch done"))
	guesttest.Until(t, st, "more")
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	<-guest.Done()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	guesttest.Eventually(t, "the command ends by itself", func() bool {
		_, err := os.Stat(filepath.Join(dir, "done"))
		return err == nil
	})
}

func TestGarbageEndsTheCommand(t *testing.T) {
	t.Parallel()
	host := server(t)
	for name, send := range map[string]struct {
		kind proto.Kind
		data string
	}{
		"wrong kind":      {proto.KindStdout, "x"},
		"signal 0":        {proto.KindSignal, "\x00"},
		"no such signal":  {proto.KindSignal, "\x7f"},
		"size too large":  {proto.KindResize, `{"cols":5000,"rows":1}`},
		"size not a size": {proto.KindResize, `[`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := guesttest.Open(t, host, proto.PortExec, command("/", "echo up; exec sleep 1000"))
			out := guesttest.Until(t, st, "up")
			guesttest.Send(t, st, send.kind, send.data)
			guesttest.Eventually(t, "the command ends", func() bool { return guesttest.Gone(out.Started.PID) })
		})
	}
}
