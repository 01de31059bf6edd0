//go:build linux

package exec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

// server runs a Server on one end of a link and returns the other.
func server(t *testing.T) (host link.Session) {
	t.Helper()
	host, guest := guesttest.Sessions(t)
	serveOn(t, guest)
	return host
}

func serveOn(t *testing.T, guest link.Session) {
	t.Helper()
	s, err := New(nil, guesttest.Log())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.SetEnv(map[string]string{"VM_VAR": "vm", "BOTH": "vm", "PATH": os.Getenv("PATH")})
	guesttest.Serve(t, guest, proto.PortExec, func(ctx context.Context, st link.Stream) { s.Serve(ctx, st) })
}

func command(dir, text string) *proto.ExecRequest {
	return &proto.ExecRequest{ID: "j1", Command: text, Dir: dir}
}

func execute(t *testing.T, host link.Session, req *proto.ExecRequest) guesttest.Output {
	t.Helper()
	return guesttest.Collect(t, guesttest.Open(t, host, proto.PortExec, req))
}

func TestHowCommandsEnd(t *testing.T) {
	t.Parallel()
	host := server(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\nexit 9\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "noise"), []byte("\x01\x02"), 0o700); err != nil {
		t.Fatal(err)
	}
	argv := func(words ...string) *proto.ExecRequest { return &proto.ExecRequest{Argv: words, Dir: dir} }
	for name, c := range map[string]struct {
		req    *proto.ExecRequest
		code   int
		signal string
		says   string
	}{
		"success":                     {command(dir, "true"), 0, "", ""},
		"code":                        {command(dir, "exit 3"), 3, "", ""},
		"signal":                      {command(dir, "kill -KILL $$"), 137, "SIGKILL", ""},
		"shell cannot find it":        {command(dir, "no-such-program-here"), 127, "", ""},
		"program not there":           {argv("no-such-program-here"), 127, "", "command not found"},
		"file not there":              {argv("./nothing"), 127, "", "no such file"},
		"not executable":              {argv("./plain"), 126, "", "permission denied"},
		"a directory":                 {argv(dir), 126, "", "is a directory"},
		"not a program":               {argv("./noise"), 126, "", "not a program"},
		"relative to the directory":   {argv("./script"), 9, "", ""},
		"no such directory":           {command(dir+"/none", "true"), 126, "", "working directory"},
		"directory is a file":         {command(dir+"/plain", "true"), 126, "", "not a directory"},
		"neither command nor argv":    {&proto.ExecRequest{Dir: dir}, 126, "", "either a command"},
		"variable that is not wanted": {&proto.ExecRequest{Command: "true", Env: map[string]string{"LD_PRELOAD": "x"}}, 126, "", "LD_PRELOAD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := execute(t, host, c.req).Exit
			if got.Code != c.code || got.Signal != c.signal || !strings.Contains(got.Error, c.says) || (c.says == "") != (got.Error == "") {
				t.Errorf("ended with %+v, want code %d, signal %q, error with %q", *got, c.code, c.signal, c.says)
			}
		})
	}
}

func TestOutputAndErrorsAreKeptApart(t *testing.T) {
	t.Parallel()
	got := execute(t, server(t), command(t.TempDir(), "echo out; echo err >&2"))
	if got.Stdout != "out\n" || got.Stderr != "err\n" || got.Started == nil || got.Started.Job != "j1" || got.Started.PID < 1 {
		t.Errorf("got %+v", got)
	}
	if got.Exit.DurationUS <= 0 {
		t.Errorf("it took %d µs", got.Exit.DurationUS)
	}
}

func TestEnvironmentDirectoryAndSession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	req := command(dir, `echo "$VM_VAR $BOTH $IS_SANDBOX $HOME"; pwd; ps -o sid= -p $$; echo $$`)
	req.Env = map[string]string{"BOTH": "request"}
	lines := strings.Split(execute(t, server(t), req).Stdout, "\n")
	if lines[0] != "vm request 1 /root" || lines[1] != dir {
		t.Errorf("got %q", lines)
	}
	if strings.TrimSpace(lines[2]) != lines[3] {
		t.Errorf("the command is in session %s, its own would be %s", lines[2], lines[3])
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	host := server(t)
	t.Run("reaches the command and ends", func(t *testing.T) {
		t.Parallel()
		st := guesttest.Open(t, host, proto.PortExec, &proto.ExecRequest{Argv: []string{"cat"}, Dir: "/", Stdin: true})
		guesttest.Send(t, st, proto.KindStdin, "hello ")
		guesttest.Send(t, st, proto.KindStdin, "world")
		guesttest.Send(t, st, proto.KindStdin, "")
		if got := guesttest.Collect(t, st); got.Stdout != "hello world" || got.Exit.Code != 0 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("is empty when none was promised", func(t *testing.T) {
		t.Parallel()
		if got := execute(t, host, &proto.ExecRequest{Argv: []string{"cat"}, Dir: "/"}); got.Stdout != "" || got.Exit.Code != 0 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("may be left unread", func(t *testing.T) {
		t.Parallel()
		st := guesttest.Open(t, host, proto.PortExec, &proto.ExecRequest{Command: "head -c 3", Dir: "/", Stdin: true})
		chunk := strings.Repeat("x", proto.MaxChunk)
		var wg sync.WaitGroup
		wg.Go(func() {
			for proto.WriteStreamFrame(st, proto.KindStdin, []byte(chunk)) == nil {
			}
		})
		if got := guesttest.Collect(t, st); got.Stdout != "xxx" || got.Exit.Code != 0 {
			t.Errorf("got %+v", got)
		}
		_ = st.Close()
		wg.Wait()
	})
}

func TestManyAtOnceDoNotMix(t *testing.T) {
	t.Parallel()
	host := server(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			got := execute(t, host, command("/", fmt.Sprintf("for i in 1 2 3; do echo o%d; echo e%d >&2; done; exit %d", i, i, i)))
			out, errs := strings.Repeat(fmt.Sprintf("o%d\n", i), 3), strings.Repeat(fmt.Sprintf("e%d\n", i), 3)
			if got.Stdout != out || got.Stderr != errs || got.Exit.Code != i {
				t.Errorf("command %d: %+v, exit %+v", i, got, *got.Exit)
			}
		})
	}
	wg.Wait()
}

func TestLargeOutputArrivesWhole(t *testing.T) {
	t.Parallel()
	got := execute(t, server(t), command("/", "head -c 8388608 /dev/zero | tr '\\0' a; echo end"))
	if len(got.Stdout) != 8<<20+4 || !strings.HasSuffix(got.Stdout, "aend\n") {
		t.Errorf("%d bytes came", len(got.Stdout))
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	host := server(t)
	req := &proto.ExecRequest{
		Command: "test -t 0 -a -t 1 -a -t 2 && stty size; echo err >&2; read -r line; echo got $line; stty size; exit 4", Dir: "/",
		PTY: &proto.WindowSize{Cols: 91, Rows: 33},
	}
	st := guesttest.Open(t, host, proto.PortExec, req)
	if got := guesttest.Until(t, st, "err").Stdout; !strings.Contains(got, "33 91") {
		t.Errorf("terminal shows %q", got)
	}
	guesttest.Send(t, st, proto.KindResize, `{"cols":100,"rows":40}`)
	guesttest.Send(t, st, proto.KindStdin, "line\n")
	if got := guesttest.Collect(t, st); !strings.Contains(got.Stdout, "got line") || !strings.Contains(got.Stdout, "40 100") || got.Exit.Code != 4 {
		t.Errorf("terminal shows %q, exit %+v", got.Stdout, got.Exit)
	}
}

func TestTheEndOfInputReachesATerminal(t *testing.T) {
	t.Parallel()
	req := &proto.ExecRequest{Argv: []string{"cat"}, Dir: "/", PTY: &proto.WindowSize{Cols: 80, Rows: 24}}
	st := guesttest.Open(t, server(t), proto.PortExec, req)
	guesttest.Send(t, st, proto.KindStdin, "x\n")
	guesttest.Send(t, st, proto.KindStdin, "")
	if got := guesttest.Collect(t, st); !strings.Contains(got.Stdout, "x\r\n"+"x\r\n") || got.Exit.Code != 0 {
		t.Errorf("got %q, %+v", got.Stdout, got.Exit)
	}
}
