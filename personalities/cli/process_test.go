package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// patience bounds a wait for something that is to happen; no test depends on how fast it does.
const patience = 20 * time.Second

// command is the command line as a process of its own.
func (f *fakeService) command(args ...string) *exec.Cmd {
	f.t.Helper()
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.CommandContext(f.t.Context(), self, args...)
	cmd.Env = []string{asCapsem + "=1", "CAPSEM_HOME=" + f.home.Dir(), "TERM=xterm-test"}
	return cmd
}

// screen is a user's terminal with capsem on it.
type screen struct {
	t    *testing.T
	tty  *os.File // the terminal's own side, to look at its settings
	user *os.File
	cmd  *exec.Cmd

	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

// onTerminal starts capsem on a terminal of 100x30.
func (f *fakeService) onTerminal(args ...string) *screen {
	f.t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		f.t.Fatal(err)
	}
	s := &screen{t: f.t, tty: tty, user: user, cmd: f.command(args...), more: make(chan struct{}, 1)}
	f.t.Cleanup(func() { _, _ = user.Close(), tty.Close() })
	if err := pty.Setsize(user, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		f.t.Fatal(err)
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go s.watch()
	return s
}

func (s *screen) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := s.user.Read(buf)
		s.mu.Lock()
		s.text.Write(buf[:n])
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (s *screen) shows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// waitFor waits until text is on the screen.
func (s *screen) waitFor(text string) {
	s.t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(s.shows(), text) {
		select {
		case <-s.more:
		case <-deadline:
			s.t.Fatalf("%q did not appear; the screen shows %q", text, s.shows())
		}
	}
}

func (s *screen) typing(text string) {
	s.t.Helper()
	if _, err := s.user.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// raw reports whether the terminal is in raw mode.
func (s *screen) raw() bool {
	s.t.Helper()
	modes, err := unix.IoctlGetTermios(int(s.tty.Fd()), getTermios)
	if err != nil {
		s.t.Fatal(err)
	}
	return modes.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0
}

// exit waits for capsem's end and returns its code; the terminal must be as it was.
func (s *screen) exit() int {
	s.t.Helper()
	err := s.cmd.Wait()
	if err != nil && s.cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	if s.raw() {
		s.t.Error("the terminal is still in raw mode")
	}
	return s.cmd.ProcessState.ExitCode()
}

// session scripts VM dev with a worker whose terminal echoes what is typed in capitals; it reports sizes and the end.
func (f *fakeService) session(id string, info api.SandboxInfo) (sizes chan proto.WindowSize, gone chan struct{}) {
	sizes, gone = make(chan proto.WindowSize, 8), make(chan struct{})
	path := filepath.Join(f.home.Run(), "instances", id+".sock")
	f.answer("POST /terminal/"+id, api.TerminalReply{UDSPath: path})
	f.answer("GET /info/"+id, info)
	newWorker(f.t, path, func(open *proto.TerminalOpen, frames *proto.StreamReader, conn net.Conn) {
		defer close(gone)
		sizes <- open.Size
		send(conn, proto.KindStdout, "ready "+open.Term+"\r\n")
		for {
			kind, data, err := frames.Next()
			if err != nil {
				return
			}
			switch kind {
			case proto.KindResize:
				var size proto.WindowSize
				if err := json.Unmarshal(data, &size); err != nil {
					f.t.Error(err)
				}
				sizes <- size
			case proto.KindStdin:
				if bytes.Contains(data, []byte("exit")) {
					send(conn, proto.KindExit, proto.ExitStatus{Code: 9})
					return
				}
				send(conn, proto.KindStdout, bytes.ToUpper(data))
			default:
				f.t.Errorf("a terminal session got a frame of kind %d", kind)
			}
		}
	})
	return sizes, gone
}

func expect[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

func TestShellIsRawFollowsTheWindowAndLeavesWithCtrlBracket(t *testing.T) {
	f := newService(t)
	sizes, gone := f.session("dev", api.SandboxInfo{ID: "dev", Name: "dev", Persistent: true, Status: lifecycle.Running})
	s := f.onTerminal("shell", "dev")
	s.waitFor("ready xterm-test")
	if size := expect(t, sizes); size != (proto.WindowSize{Cols: 100, Rows: 30}) {
		t.Errorf("opened with %+v", size)
	}
	s.typing("abc")
	s.waitFor("ABC")
	if !s.raw() {
		t.Error("the terminal is not in raw mode")
	}
	s.typing("\x03\x04") // Ctrl-C and Ctrl-D are the guest's
	s.waitFor("\x03\x04")
	if err := pty.Setsize(s.user, &pty.Winsize{Cols: 132, Rows: 50}); err != nil {
		t.Fatal(err)
	}
	if size := expect(t, sizes); size != (proto.WindowSize{Cols: 132, Rows: 50}) {
		t.Errorf("resized to %+v", size)
	}
	s.typing("\x1d")
	s.waitFor("capsem shell dev comes back to this shell")
	if code := s.exit(); code != 0 {
		t.Errorf("code %d: %s", code, s.shows())
	}
	expect(t, gone)
	f.wantCalls("GET /info/dev", "POST /terminal/dev")
}

func TestAShellThatExitsIsNoFailure(t *testing.T) {
	f := newService(t)
	f.session("dev", api.SandboxInfo{ID: "dev", Persistent: true, Status: lifecycle.Running})
	s := f.onTerminal("shell", "-n", "dev")
	s.waitFor("ready")
	s.typing("exit\r")
	if code := s.exit(); code != 0 {
		t.Errorf("code %d: %s", code, s.shows())
	}
}

func TestShellStartsAStoppedVMAndSaysSo(t *testing.T) {
	f := newService(t)
	f.session("dev", api.SandboxInfo{ID: "dev", Name: "dev", Persistent: true, Status: lifecycle.Stopped})
	f.answer("POST /resume/dev", api.ProvisionReply{ID: "dev"})
	s := f.onTerminal("attach", "dev")
	s.waitFor("VM dev is Stopped; starting it")
	s.waitFor("ready")
	s.typing("\x1d")
	if code := s.exit(); code != 0 {
		t.Errorf("code %d: %s", code, s.shows())
	}
	f.wantCalls("GET /info/dev", "POST /resume/dev", "POST /terminal/dev")
}

func TestABareShellDestroysItsVMHoweverTheUserLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(s *screen)
		code  int
		says  string
	}{
		"Ctrl-]":              {func(s *screen) { s.typing("\x1d") }, 0, "left VM tmp. Temporary VMs are destroyed; capsem persist tmp NAME"},
		"exit":                {func(s *screen) { s.typing("exit\r") }, 0, ""},
		"terminated":          {func(s *screen) { _ = s.cmd.Process.Signal(syscall.SIGTERM) }, 143, ""},
		"the terminal closes": {func(s *screen) { _ = s.cmd.Process.Signal(syscall.SIGHUP) }, 129, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newService(t)
			_, gone := f.session("tmp", api.SandboxInfo{ID: "tmp", Status: lifecycle.Running})
			f.answer("POST /provision", api.ProvisionReply{ID: "tmp"})
			f.answer("DELETE /delete/tmp", api.Success{Success: true})
			s := f.onTerminal("shell", "--ram", "1G")
			s.waitFor("VM tmp is temporary")
			s.waitFor("ready")
			c.leave(s)
			s.waitFor(c.says)
			if code := s.exit(); code != c.code {
				t.Errorf("code %d, want %d: %s", code, c.code, s.shows())
			}
			expect(t, gone)
			f.wantCalls(`POST /provision {"ram_mb":1024}`, "POST /terminal/tmp", "GET /info/tmp", "DELETE /delete/tmp")
		})
	}
}

func TestAVMThatShutsDownUnderAShellIsNoFailure(t *testing.T) {
	for status, code := range map[lifecycle.State]int{lifecycle.Stopped: 0, lifecycle.Defunct: 1} {
		f := newService(t)
		path := filepath.Join(f.home.Run(), "instances", "dev.sock")
		f.answer("POST /terminal/dev", api.TerminalReply{UDSPath: path})
		info := api.SandboxInfo{ID: "dev", Persistent: true, Status: lifecycle.Running}
		after := info
		after.Status, after.LastError = status, "kernel panic"
		infos := make(chan api.SandboxInfo, 2)
		infos <- info
		infos <- after
		f.mux.HandleFunc("GET /info/dev", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, <-infos) })
		newWorker(t, path, func(_ *proto.TerminalOpen, _ *proto.StreamReader, conn net.Conn) { send(conn, proto.KindStdout, "bye") })
		s := f.onTerminal("shell", "dev")
		if got := s.exit(); got != code {
			t.Errorf("%s: code %d: %s", status, got, s.shows())
		}
		s.waitFor(map[int]string{0: "VM dev has shut down", 1: "VM dev died: kernel panic; capsem logs dev"}[code])
	}
}

func TestRunOnATerminalGetsOneAndItsSize(t *testing.T) {
	f := newService(t)
	f.temporary()
	f.stream("tmp", func(req api.ExecRequest, frames *proto.StreamReader, conn net.Conn) {
		if req.PTY == nil || *req.PTY != (proto.WindowSize{Cols: 100, Rows: 30}) || req.Env["TERM"] != "xterm-test" {
			t.Errorf("request %+v", req)
		}
		send(conn, proto.KindStdout, "go\r\n")
		_, data, err := frames.Next()
		if err != nil {
			t.Error(err)
		}
		send(conn, proto.KindExit, proto.ExitStatus{Code: len(data)})
	})
	s := f.onTerminal("run", "top")
	s.waitFor("go")
	s.typing("\x03")
	if code := s.exit(); code != 1 {
		t.Errorf("code %d: %s", code, s.shows())
	}
}

func TestCtrlCInRunEndsTheCommandAndTheVM(t *testing.T) {
	f := newService(t)
	f.temporary()
	started, got := make(chan struct{}), make(chan byte, 4)
	f.stream("tmp", func(_ api.ExecRequest, frames *proto.StreamReader, conn net.Conn) {
		close(started)
		for {
			kind, data, err := frames.Next()
			if err != nil {
				return
			}
			if kind != proto.KindSignal {
				continue
			}
			got <- data[0]
			if data[0] == byte(syscall.SIGKILL) {
				send(conn, proto.KindExit, proto.ExitStatus{Code: 137, Signal: "SIGKILL"})
				return
			}
		}
	})
	cmd := f.command("run", "trap '' INT; sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect(t, started)
	for i, want := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if sig := expect(t, got); sig != byte(want) {
			t.Errorf("signal %d was %d, want %d", i+1, sig, want)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 137 {
		t.Errorf("code %d", code)
	}
	if calls := f.asked(); calls[len(calls)-1] != "DELETE /delete/tmp" {
		t.Errorf("calls: %q", calls)
	}
}

func TestCtrlCIsNotHeldUpByInputThatTheGuestDoesNotTake(t *testing.T) {
	f := newService(t)
	f.temporary()
	started, ended := make(chan struct{}), make(chan struct{})
	f.stream("tmp", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
		close(started)
		// Takes nothing until the other side hangs up, then everything that was under way.
		_, _ = io.Copy(io.Discard, &blockUntil{Conn: conn, ready: ended})
	})
	cmd := f.command("run", "sleep 1000")
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	cmd.Stdin = zero
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect(t, started)
	// The first signals may still fit into the connection's buffers, before the input that nobody takes.
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	for range impatience {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-exited:
		case <-time.After(2 * signalPatience):
		}
	}
	<-exited
	close(ended)
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("code %d", code)
	}
	if calls := f.asked(); calls[len(calls)-1] != "DELETE /delete/tmp" {
		t.Errorf("calls: %q", calls)
	}
}

// blockUntil is a connection that nothing is read from until ready is closed.
type blockUntil struct {
	net.Conn
	ready chan struct{}
}

func (b *blockUntil) Read(p []byte) (int, error) {
	<-b.ready
	return b.Conn.Read(p)
}

func TestCtrlCWhileTheVMBootsEndsBoth(t *testing.T) {
	f := newService(t)
	booting, gone := make(chan struct{}), make(chan struct{})
	f.mux.HandleFunc("POST /provision", func(_ http.ResponseWriter, r *http.Request) {
		close(booting)
		<-r.Context().Done()
		close(gone)
	})
	cmd := f.command("run", "true")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect(t, booting)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	expect(t, gone)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || stderr.Len() > 0 {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}

func TestAPipeWhoseReaderLeavesEndsCapsemLikeAnyProgram(t *testing.T) {
	f := newService(t)
	f.stream("dev", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
		chunk := bytes.Repeat([]byte("y\n"), 1000)
		for proto.WriteStreamFrame(conn, proto.KindStdout, chunk) == nil {
		}
	})
	cmd := f.command("exec", "dev", "yes")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 141 || stderr.Len() > 0 {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}
