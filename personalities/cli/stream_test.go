package cli

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// temporary scripts the life of a temporary VM called tmp.
func (f *fakeService) temporary() {
	f.answer("POST /provision", api.ProvisionReply{ID: "tmp"})
	f.answer("GET /info/tmp", api.SandboxInfo{ID: "tmp", Status: lifecycle.Running})
	f.answer("DELETE /delete/tmp", api.Success{Success: true})
}

func TestRunMakesAVMRunsTheCommandAndDestroysTheVM(t *testing.T) {
	f := newService(t)
	f.temporary()
	f.stream("tmp", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
		send(conn, proto.KindStarted, proto.Started{Job: "j1", PID: 7})
		send(conn, proto.KindStdout, "42\n")
		send(conn, proto.KindStderr, "warning\n")
		send(conn, proto.KindExit, proto.ExitStatus{Code: 3})
	})
	r := f.capsem(nil, "run", "--ram", "1G", "echo 42; exit 3")
	if r != (result{"42\n", "warning\n", 3}) {
		t.Errorf("%+v", r)
	}
	f.wantCalls(`POST /provision {"ram_mb":1024}`, "POST /exec/tmp/stream",
		`first frame {"command":"echo 42; exit 3","stdin":true}`, "GET /info/tmp", "DELETE /delete/tmp")
}

func TestTheGuestsWordsAndOurFlagsArriveAsMeant(t *testing.T) {
	for line, want := range map[string]string{
		"exec dev true":    `{"command":"true","stdin":true}`,
		"exec dev -- true": `{"argv":["true"],"stdin":true}`,
		"exec dev ls -l":   `{"argv":["ls","-l"],"stdin":true}`,
		"exec -w /tmp dev -e A=b=c --timeout 1.5 -- ls": `{"argv":["ls"],"dir":"/tmp","env":{"A":"b=c"},"timeout_secs":1.5,"stdin":true}`,
		"exec -t dev -- top":                            `{"argv":["top"],"env":{"TERM":"xterm"},"stdin":true,"pty":{"cols":80,"rows":24}}`,
		"exec -t=false dev top":                         `{"command":"top","stdin":true}`,
		"exec -i dev cat":                               `{"command":"cat","stdin":true}`,
		"exec -i=false dev cat":                         `{"command":"cat"}`,
		"exec -t -i=false dev top":                      `{"command":"top","env":{"TERM":"xterm"},"pty":{"cols":80,"rows":24}}`,
	} {
		t.Run(line, func(t *testing.T) {
			f := newService(t)
			f.stream("dev", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
				send(conn, proto.KindExit, proto.ExitStatus{})
			})
			if r := f.capsem(nil, strings.Fields(line)...); r != (result{}) {
				t.Errorf("%+v", r)
			}
			f.wantCalls("POST /exec/dev/stream", "first frame "+want)
		})
	}
}

func TestInputReachesTheCommandWholeAndEnds(t *testing.T) {
	f := newService(t)
	want := strings.Repeat("0123456789abcdef", 20000) // several frames
	f.stream("dev", func(_ api.ExecRequest, frames *proto.StreamReader, conn net.Conn) {
		var got bytes.Buffer
		for {
			kind, data, err := frames.Next()
			if err != nil || kind != proto.KindStdin {
				t.Errorf("kind %d: %v", kind, err)
				return
			}
			if len(data) == 0 {
				break
			}
			got.Write(data)
		}
		if got.String() != want {
			t.Errorf("%d bytes arrived, not the %d sent", got.Len(), len(want))
		}
		send(conn, proto.KindExit, proto.ExitStatus{Code: 7})
	})
	if r := f.capsem(strings.NewReader(want), "exec", "dev", "cat"); r.code != 7 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

func TestInputThatNobodyWritesDoesNotHoldTheEndUp(t *testing.T) {
	f := newService(t)
	f.stream("dev", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
		send(conn, proto.KindExit, proto.ExitStatus{Code: 5})
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if got := f.capsem(r, "exec", "dev", "exit 5"); got.code != 5 {
		t.Errorf("%+v", got)
	}
	// What was not read before is left for the next program.
	if _, err := w.WriteString("later"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "later" {
		t.Errorf("%q, %v", buf, err)
	}
}

func TestHowACommandEndsIsHowCapsemEnds(t *testing.T) {
	lost := "capsem: the connection to the VM was lost before the command ended; see capsem list and capsem logs\n"
	for name, c := range map[string]struct {
		end  func(conn net.Conn)
		want result
	}{
		"success": {func(c net.Conn) { send(c, proto.KindExit, proto.ExitStatus{}) }, result{}},
		"signal":  {func(c net.Conn) { send(c, proto.KindExit, proto.ExitStatus{Code: 137, Signal: "SIGKILL"}) }, result{code: 137}},
		"missing": {func(c net.Conn) { send(c, proto.KindExit, proto.ExitStatus{Code: 127, Error: "nope: not found"}) }, result{"", "capsem: nope: not found\n", 127}},
		"time is up": {func(c net.Conn) {
			send(c, proto.KindExit, proto.ExitStatus{Code: 137, TimedOut: true, DurationUS: 1500000, Error: "x"})
		}, result{"", "capsem: the command was ended after 1.5 s; give it more with --timeout\n", 124}},
		"time is up, but it said 0": {func(c net.Conn) {
			send(c, proto.KindExit, proto.ExitStatus{TimedOut: true, DurationUS: 2e6})
		}, result{"", "capsem: the command was ended after 2 s; give it more with --timeout\n", 124}},
		"hung up": {func(net.Conn) {}, result{"", lost, 125}},
		"given up": {func(c net.Conn) {
			send(c, proto.KindError, proto.StreamError{Code: "unavailable", Message: "the VM died", Hint: "capsem logs dev"})
		}, result{"", "capsem: the VM died; capsem logs dev\n", 125}},
		"bad frame":   {func(c net.Conn) { _, _ = c.Write([]byte{99, 0, 0, 0, 0}) }, result{"", lost, 125}},
		"huge frame":  {func(c net.Conn) { _, _ = c.Write([]byte{1, 0xff, 0xff, 0xff, 0xff}) }, result{"", lost, 125}},
		"bad exit":    {func(c net.Conn) { send(c, proto.KindExit, "{") }, result{"", "capsem: the VM sent a malformed end of the command\n", 125}},
		"bad error":   {func(c net.Conn) { send(c, proto.KindError, "{") }, result{"", "capsem: the VM sent a malformed error\n", 125}},
		"later frame": {func(c net.Conn) { send(c, proto.KindResult, "?"); send(c, proto.KindExit, proto.ExitStatus{Code: 4}) }, result{code: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newService(t)
			f.stream("dev", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) { c.end(conn) })
			if r := f.capsem(nil, "exec", "dev", "x"); r != c.want {
				t.Errorf("%+v, want %+v", r, c.want)
			}
		})
	}
}

func TestATemporaryVMIsDestroyedHoweverTheCommandEnds(t *testing.T) {
	f := newService(t)
	f.temporary()
	f.stream("tmp", func(api.ExecRequest, *proto.StreamReader, net.Conn) {})
	if r := f.capsem(nil, "run", "x"); r.code != fault.ExitCapsem {
		t.Errorf("%+v", r)
	}
	if calls := f.asked(); calls[len(calls)-1] != "DELETE /delete/tmp" {
		t.Errorf("calls: %q", calls)
	}
}

func TestAVMThatWasGivenANameMeanwhileIsKept(t *testing.T) {
	f := newService(t)
	f.answer("POST /provision", api.ProvisionReply{ID: "tmp"})
	f.answer("GET /info/tmp", api.SandboxInfo{ID: "kept", Persistent: true})
	f.stream("tmp", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
		send(conn, proto.KindExit, proto.ExitStatus{})
	})
	if r := f.capsem(nil, "run", "x"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if calls := f.asked(); calls[len(calls)-1] != "GET /info/tmp" {
		t.Errorf("calls: %q", calls)
	}
}

func TestAVMThatCannotBeDestroyedIsNoSuccess(t *testing.T) {
	f := newService(t)
	f.answer("POST /provision", api.ProvisionReply{ID: "tmp"})
	f.answer("GET /info/tmp", api.SandboxInfo{ID: "tmp"})
	f.refuse("DELETE /delete/tmp", fault.New(fault.Internal, "cannot remove it"))
	f.stream("tmp", func(_ api.ExecRequest, _ *proto.StreamReader, conn net.Conn) {
		send(conn, proto.KindExit, proto.ExitStatus{})
	})
	if r := f.capsem(nil, "run", "x"); r != (result{"", "capsem: cannot remove it\n", 125}) {
		t.Errorf("%+v", r)
	}
}

func TestRunDetachedKeepsTheVMAndPrintsBothIDs(t *testing.T) {
	f := newService(t)
	f.temporary()
	f.answer("POST /exec/tmp", api.ExecReply{Job: "j1"})
	if r := f.capsem(nil, "run", "-d", "sleep 9"); r != (result{"tmp j1\n", "", 0}) {
		t.Errorf("%+v", r)
	}
	f.wantCalls("POST /provision {}", `POST /exec/tmp {"command":"sleep 9","detach":true}`)
}

// brokenPipe is a stdout whose reader has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestABrokenPipeEndsTheCommandQuietlyAndTheVMToo(t *testing.T) {
	f := newService(t)
	f.temporary()
	ended := make(chan error, 1)
	f.stream("tmp", func(_ api.ExecRequest, frames *proto.StreamReader, conn net.Conn) {
		send(conn, proto.KindStdout, "y\n")
		for {
			if _, _, err := frames.Next(); err != nil {
				ended <- err
				return
			}
		}
	})
	env := f.env("run", "yes")
	env.Stdout = brokenPipe{}
	err := Run(t.Context(), env)
	if fault.ExitCode(err) != 128+int(syscall.SIGPIPE) || fault.Line(err) != "" {
		t.Errorf("code %d, %q", fault.ExitCode(err), fault.Line(err))
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("the command saw %v", err)
	}
	if calls := f.asked(); calls[len(calls)-1] != "DELETE /delete/tmp" {
		t.Errorf("calls: %q", calls)
	}
}
