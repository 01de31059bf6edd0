package workerclient

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// worker listens as a worker would and serves one connection after another by script.
func worker(t *testing.T, hello proto.WorkerHello, script func(conn net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.sock")
	l, err := safesocket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = l.Close(), safesocket.Remove(path) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var theirs proto.WorkerHello
			if proto.ReadFrame(conn, proto.MaxHeader, &theirs) == nil && proto.WriteFrame(conn, hello) == nil {
				script(conn)
			}
			_ = conn.Close()
		}
	}()
	return path
}

var good = proto.WorkerHello{Protocol: proto.Version, Build: "test", PID: 7, ID: "vm"}

func TestCallsFollowOneAnotherAndErrorsAreFaults(t *testing.T) {
	path := worker(t, good, func(conn net.Conn) {
		for {
			var req proto.WorkerRequest
			if proto.ReadFrame(conn, proto.MaxFrame, &req) != nil {
				return
			}
			reply := proto.WorkerReply{Jobs: []proto.Job{{ID: req.Job}}}
			if req.Op != proto.OpJob {
				reply = proto.WorkerReply{Error: &proto.StreamError{Code: "not_found", Message: "no", Hint: "look"}}
			}
			_ = proto.WriteFrame(conn, reply)
		}
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Hello() != good {
		t.Errorf("hello is %+v", c.Hello())
	}
	for _, id := range []string{"a", "b"} {
		reply, err := c.Call(t.Context(), proto.WorkerRequest{Op: proto.OpJob, Job: id})
		if err != nil || len(reply.Jobs) != 1 || reply.Jobs[0].ID != id {
			t.Errorf("got %+v, %v", reply, err)
		}
	}
	if _, err := c.Call(t.Context(), proto.WorkerRequest{Op: proto.OpJobs}); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestAStreamKeepsWhatCameRightBehindTheReply(t *testing.T) {
	path := worker(t, good, func(conn net.Conn) {
		var req proto.WorkerRequest
		_ = proto.ReadFrame(conn, proto.MaxFrame, &req)
		b, _ := proto.Marshal(proto.WorkerReply{})
		_, _ = conn.Write(append([]byte{0, 0, 0, byte(len(b))}, append(b, "at once"...)...))
		_, _ = io.Copy(conn, conn)
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Stream(t.Context(), proto.WorkerRequest{Op: proto.OpForward, ForwardPort: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, ", and later"); err != nil {
		t.Fatal(err)
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("no half ends")
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "at once, and later" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWatchEndsWithTheWorkerAndOnNonsense(t *testing.T) {
	path := worker(t, good, func(conn net.Conn) {
		var req proto.WorkerRequest
		_ = proto.ReadFrame(conn, proto.MaxFrame, &req)
		_ = proto.WriteFrame(conn, proto.WorkerReply{})
		for _, s := range []lifecycle.State{lifecycle.Booting, lifecycle.Running, "Exploding"} {
			_ = proto.WriteFrame(conn, proto.WorkerStatus{State: s})
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	states, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for st := range states {
		seen = append(seen, string(st.State))
	}
	if strings.Join(seen, " ") != "Booting Running" {
		t.Errorf("saw %v", seen)
	}
}

func TestWhoeverIsNoWorkerOfOursIsUnavailable(t *testing.T) {
	other := good
	other.Protocol = 99
	silent := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	paths := map[string]string{
		"nobody":         filepath.Join(t.TempDir(), "x.sock"),
		"other protocol": worker(t, other, silent),
	}
	for name, path := range paths {
		if _, err := Dial(t.Context(), path); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := Dial(t.Context(), worker(t, good, silent))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, proto.WorkerRequest{Op: proto.OpStatus}); !fault.Is(err, fault.Unavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent worker gives %v", err)
	}
}

func FuzzReply(f *testing.F) {
	b, _ := proto.Marshal(proto.WorkerReply{Error: &proto.StreamError{Code: "internal", Message: "x"}})
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		var reply proto.WorkerReply
		if proto.Unmarshal(b, &reply) == nil && reply.Error != nil {
			_ = fault.Line(Fault(reply.Error))
		}
	})
}
