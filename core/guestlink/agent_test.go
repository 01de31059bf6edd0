package guestlink

import (
	"context"
	"errors"
	"testing"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

func TestAttachConfiguresTheGuestAndKnowsItsBoot(t *testing.T) {
	host, guest := sessions(t)
	type got struct {
		cfg   proto.BootConfig
		files []proto.FileWrite
	}
	received := make(chan got, 1)
	scripted(t, guest, func(c link.Stream) {
		cfg, files := boot(t, c)
		received <- got{cfg, files}
		answerPings(t, c, nil)
	})
	cfg := config()
	cfg.Files = []proto.FileWrite{{Path: "/etc/a", Mode: 0o600, Data: []byte("x")}, {Path: "/etc/b", Mode: 0o644}}
	before := time.Now().UnixNano()
	a, err := Attach(t.Context(), host, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	g := <-received
	if g.cfg.ID != "vm1" || g.cfg.Env["A"] != "b" || len(g.files) != 2 || string(g.files[0].Data) != "x" {
		t.Errorf("the guest got %+v and %d files", g.cfg, len(g.files))
	}
	if g.cfg.EpochNS < before || g.cfg.EpochNS > time.Now().UnixNano() {
		t.Error("the guest was not given the present time")
	}
	if a.Ready().Agent != "test" || len(a.Stages()) != 1 || a.Stages()[0].DurationUS != 12 || len(a.Failed()) != 1 {
		t.Errorf("Ready %+v, Stages %v, Failed %v", a.Ready(), a.Stages(), a.Failed())
	}
	if err := a.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

func TestRequestsArriveWithTheirStream(t *testing.T) {
	a, guest := attached(t, config())
	show := func(v interface{ Validate() error }) func(link.Stream) {
		return func(st link.Stream) {
			if err := proto.ReadFrame(st, proto.MaxFrame, v); err != nil {
				t.Error(err)
			}
			_, _ = st.Write([]byte("ok"))
		}
	}
	var exec proto.ExecRequest
	var term proto.TerminalOpen
	var file proto.FileRequest
	var dest string
	serve(t, guest, proto.PortExec, show(&exec))
	serve(t, guest, proto.PortTerminal, show(&term))
	serve(t, guest, proto.PortAgentFiles, show(&file))
	serve(t, guest, proto.PortForward, func(st link.Stream) {
		dest = st.Header().Dest
		_, _ = st.Write([]byte("ok"))
	})
	ctx := t.Context()
	for name, open := range map[string]func() (link.Stream, error){
		"exec": func() (link.Stream, error) { return a.Exec(ctx, &proto.ExecRequest{Command: "true"}) },
		"terminal": func() (link.Stream, error) {
			return a.Terminal(ctx, &proto.TerminalOpen{Session: "s", Size: proto.WindowSize{Cols: 80, Rows: 24}})
		},
		"file":    func() (link.Stream, error) { return a.File(ctx, &proto.FileRequest{Op: proto.FileStat, Path: "f"}) },
		"forward": func() (link.Stream, error) { return a.Forward(ctx, 8080) },
	} {
		st, err := open()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := readAll(t, st); got != "ok" {
			t.Errorf("%s: got %q", name, got)
		}
		_ = st.Close()
	}
	if exec.Command != "true" || term.Session != "s" || file.Path != "f" || dest != "127.0.0.1:8080" {
		t.Errorf("the guest saw %+v, %+v, %+v, %q", exec, term, file, dest)
	}
}

func TestBadRequestsNeverLeave(t *testing.T) {
	a, _ := attached(t, config())
	for name, err := range map[string]error{
		"exec":     second(a.Exec(t.Context(), &proto.ExecRequest{})),
		"terminal": second(a.Terminal(t.Context(), &proto.TerminalOpen{})),
		"file":     second(a.File(t.Context(), &proto.FileRequest{Op: "format"})),
	} {
		if err == nil {
			t.Errorf("%s: a malformed request is sent", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestShutdownReachesTheGuest(t *testing.T) {
	host, guest := sessions(t)
	seen := make(chan proto.HostMessage, 1)
	scripted(t, guest, func(c link.Stream) {
		boot(t, c)
		answerPings(t, c, seen)
	})
	a, err := Attach(t.Context(), host, config())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Shutdown(t.Context(), 70_000, true); err != nil {
		t.Fatal(err)
	}
	if m := <-seen; m != (proto.Shutdown{GraceMS: 60_000, Reboot: true}) {
		t.Errorf("the guest got %+v", m)
	}
}

func TestLifecycleRequests(t *testing.T) {
	cfg := config()
	cfg.OnLifecycle = func(r proto.LifecycleRequest) proto.LifecycleReply {
		return proto.LifecycleReply{OK: r.Action == proto.ActionReboot, Message: string(r.Action)}
	}
	allowed, guest := attached(t, cfg)
	_ = allowed
	refusing, guest2 := attached(t, config())
	_ = refusing
	for _, c := range []struct {
		name    string
		session link.Session
		action  proto.LifecycleAction
		ok      bool
	}{
		{"allowed", guest, proto.ActionReboot, true},
		{"refused by the handler", guest, proto.ActionSuspend, false},
		{"unknown action", guest, "explode", false},
		{"no handler", guest2, proto.ActionReboot, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := c.session.Open(t.Context(), proto.StreamHeader{Port: proto.PortLifecycle})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if err := proto.WriteFrame(st, proto.LifecycleRequest{Action: c.action}); err != nil {
				t.Fatal(err)
			}
			var reply proto.LifecycleReply
			if err := proto.ReadFrame(st, proto.MaxHeader, &reply); err != nil || reply.OK != c.ok {
				t.Errorf("reply %+v, %v", reply, err)
			}
		})
	}
}

func TestAPausedGuestKeepsItsAgent(t *testing.T) {
	host, guest := sessions(t)
	goOn := make(chan struct{})
	scripted(t, guest, func(c link.Stream) {
		boot(t, c)
		<-goOn
		answerPings(t, c, nil)
	})
	a, err := Attach(t.Context(), host, config())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := a.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping of a paused guest: %v", err)
	}
	close(goOn)
	if err := a.Ping(t.Context()); err != nil {
		t.Errorf("Ping after the pause: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	a, guest := attached(t, config())
	listener, err := guest.Listen(proto.PortExec)
	if err != nil {
		t.Fatal(err)
	}
	st, err := a.Exec(t.Context(), &proto.ExecRequest{Command: "sleep 100"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, link.ErrSessionEnded) {
		t.Errorf("Read: %v", err)
	}
	for name, err := range map[string]error{
		"Err": a.Err(), "Ping": a.Ping(t.Context()), "Shutdown": a.Shutdown(t.Context(), 0, false),
		"Exec": second(a.Exec(t.Context(), &proto.ExecRequest{Command: "true"})),
	} {
		if !errors.Is(err, link.ErrSessionEnded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
