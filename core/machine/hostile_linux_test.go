package machine

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/fake"
	"capsem/core/lifecycle"
	"capsem/core/link"
	"capsem/core/proto"
	"capsem/core/safesocket"
	"capsem/core/workerclient"
)

func soon(limit time.Duration) change {
	return func(spec *proto.VMSpec, _ *Config) { spec.ReadyTimeoutMS = limit.Milliseconds() }
}

func TestAGuestThatNeverBecomesReadyIsEndedWithItsConsole(t *testing.T) {
	silent := func(_ context.Context, carrier net.Conn, _ fake.Power) { _, _ = io.Copy(io.Discard, carrier) }
	k := start(t, silent, soon(300*time.Millisecond))
	k.until("booting", func(st proto.WorkerStatus) bool { return st.Step == "booting the guest" })
	if _, err := k.w.console.WriteString("early\nkernel: \x1b[31mno init\x00 found\r\n"); err != nil {
		t.Fatal(err)
	}
	st := k.ended()
	if st.State != lifecycle.Defunct || !strings.Contains(st.LastError, "not ready within") ||
		!strings.Contains(st.LastError, "kernel: no init found") || strings.ContainsAny(st.LastError, "\x1b\x00\r") {
		t.Errorf("last status %+v", st)
	}
}

func TestAGuestThatSendsGarbageIsEnded(t *testing.T) {
	for name, text := range map[string]string{"noise": "\x00\xff\x1e\x7f noise", "magic": "\xd7\xff\xff\xff\xff\xff\xff\xff"} {
		t.Run(name, func(t *testing.T) {
			flood := func(_ context.Context, carrier net.Conn, _ fake.Power) {
				go func() { _, _ = io.Copy(io.Discard, carrier) }()
				block := []byte(strings.Repeat(text, 1000))
				for {
					if _, err := carrier.Write(block); err != nil {
						return
					}
				}
			}
			if st := start(t, flood, soon(300*time.Millisecond)).ended(); st.State != lifecycle.Defunct || st.LastError == "" {
				t.Errorf("last status %+v", st)
			}
		})
	}
}

// pretend is a guest that shakes hands as it should and then does what it likes with each stream to the port of commands.
func pretend(t testing.TB, do func(st link.Stream)) func(context.Context, net.Conn, fake.Power) {
	t.Helper()
	return func(ctx context.Context, carrier net.Conn, _ fake.Power) {
		s, err := link.Accept(ctx, carrier, quiet())
		if err != nil {
			return
		}
		defer s.Close()
		controls, err := s.Listen(proto.PortControl)
		if err != nil {
			t.Error(err)
			return
		}
		commands, err := s.Listen(proto.PortExec)
		if err != nil {
			t.Error(err)
			return
		}
		files, err := s.Listen(proto.PortAgentFiles)
		if err != nil {
			t.Error(err)
			return
		}
		control, err := controls.Accept(ctx)
		if err != nil {
			return
		}
		_ = proto.WriteGuest(control, proto.Ready{Protocol: proto.Version, Agent: "test", BootID: "b"})
		for {
			m, err := proto.ReadHost(control)
			if err != nil {
				return
			}
			if _, ok := m.(proto.BootConfigDone); ok {
				break
			}
		}
		_ = proto.WriteGuest(control, proto.BootReady{})
		_ = proto.WriteGuest(control, proto.BootTiming{})
		go serveAll(ctx, files, do)
		serveAll(ctx, commands, do)
	}
}

func serveAll(ctx context.Context, l link.Listener, do func(st link.Stream)) {
	for {
		st, err := l.Accept(ctx)
		if err != nil {
			return
		}
		go do(st)
	}
}

func TestAGuestThatBreaksTheRulesOfAStreamLosesItAlone(t *testing.T) {
	bad := map[string]string{
		"unknown kind": "\x63\x00\x00\x00\x01x", "huge frame": "\x01\x7f\xff\xff\xff", "host's kind": frameOf(proto.KindError, `{"code":"internal"}`),
		"file's kind": frameOf(proto.KindResult, `{}`), "input": frameOf(proto.KindStdin, "x"), "no JSON": frameOf(proto.KindExit, "exit"),
		"started twice": frameOf(proto.KindStarted, `{}`) + frameOf(proto.KindStarted, `{}`), "ends early": "",
	}
	current := make(chan string, 1)
	k := start(t, pretend(t, func(st link.Stream) {
		defer st.Close()
		var req proto.ExecRequest
		if proto.ReadFrame(st, proto.MaxFrame, &req) == nil {
			_, _ = io.WriteString(st, <-current)
		}
	}))
	k.ready()
	for name, text := range bad {
		current <- text
		if o := collect(t, k.shell("true")); o.fail == nil || o.exit != nil {
			t.Errorf("%s: %+v", name, o)
		}
	}
	current <- frameOf(proto.KindExit, `{"code":7,"signal":"\u001b[2J","error":"`+strings.Repeat("x", 9000)+`","duration_us":-5}`)
	o := collect(t, k.shell("true"))
	if o.exit == nil || o.exit.Code != 7 || o.exit.Signal != "" || len(o.exit.Error) > 1024 || o.exit.DurationUS != 0 {
		t.Errorf("a proper end: %+v", o)
	}
}

func TestOutputThatNobodyReadsHoldsTheGuestBack(t *testing.T) {
	var sent atomic.Int64
	k := start(t, pretend(t, func(st link.Stream) {
		defer st.Close()
		block := make([]byte, proto.MaxChunk)
		for proto.WriteStreamFrame(st, proto.KindStdout, block) == nil {
			sent.Add(int64(len(block)))
		}
	}))
	k.ready()
	conn := k.shell("cat /dev/zero")
	r := proto.NewStreamReader(conn)
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	// It stops by itself: what is sent does not grow any more, in ten looks one after another.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for before, still := int64(-1), 0; still < 10; before = sent.Load() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("the guest goes on sending to a client that does not read")
		}
		if still++; sent.Load() != before {
			still = 0
		}
	}
	if n := sent.Load(); n > 8<<20 {
		t.Errorf("%d bytes were taken for a client that reads none", n)
	}
	if reply := k.call(proto.WorkerRequest{Op: proto.OpStatus}); reply.Status.State != lifecycle.Running {
		t.Errorf("status %+v", reply.Status)
	}
}

func TestALostLinkFailsWhoWaitsAndIsMadeAnew(t *testing.T) {
	var carriers atomic.Int32
	cut := make(chan struct{})
	serve := realGuest(t)
	k := start(t, func(ctx context.Context, carrier net.Conn, press fake.Power) {
		if carriers.Add(1) == 1 {
			go func() {
				<-cut
				_ = carrier.Close()
			}()
		}
		serve(ctx, carrier, press)
	})
	first := k.ready()
	conn := k.shell("exec sleep 1000")
	r := proto.NewStreamReader(conn)
	if kind, _, err := r.Next(); err != nil || kind != proto.KindStarted {
		t.Fatal(kind, err)
	}
	watcher := k.dial()
	waited := make(chan error, 1)
	go func() {
		reply, err := watcher.Call(t.Context(), proto.WorkerRequest{Op: proto.OpWaitJob, Job: "j1"})
		if err == nil && reply.Jobs[0].State != proto.JobLost {
			t.Errorf("the job is %+v", reply.Jobs[0])
		}
		waited <- err
	}()
	close(cut)
	if o := collect(t, conn); o.fail == nil || o.fail.Code != string(fault.Unavailable) || !strings.Contains(o.fail.Message, "link") {
		t.Errorf("its client is told %+v", o)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	again := func() bool {
		c := k.dial()
		defer c.Close()
		conn, err := c.Stream(t.Context(), proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: "echo back", Dir: "/"}})
		return err == nil && collect(t, conn).stdout == "back\n"
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(patience); !again(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("no command runs any more")
		}
	}
	if st := k.ready(); st.ReadyNS != first.ReadyNS || st.Reboots != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestTheEndOfTheHypervisorIsToldToEveryone(t *testing.T) {
	press := make(chan fake.Power, 4)
	serve := realGuest(t)
	k := start(t, func(ctx context.Context, carrier net.Conn, p fake.Power) {
		press <- p
		serve(ctx, carrier, p)
	})
	k.ready()
	conn := k.shell("exec sleep 1000")
	changes, err := k.dial().Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.w.console.WriteString("last words\n"); err != nil {
		t.Fatal(err)
	}
	(<-press)(hypervisor.Crashed)
	var last proto.WorkerStatus
	for last = range changes {
	}
	if last.State != lifecycle.Defunct || !strings.Contains(last.LastError, "the hypervisor died") || !strings.Contains(last.LastError, "last words") {
		t.Errorf("watchers see %+v", last)
	}
	if o := collect(t, conn); o.fail == nil {
		t.Errorf("the command's client is told %+v", o)
	}
	if st := k.ended(); st.LastError != last.LastError {
		t.Errorf("left behind: %+v", st)
	}
	if _, err := workerclient.Dial(t.Context(), k.home.InstanceSocket(k.id)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("its socket still answers: %v", err)
	}
}

func TestAVMThatBootsCanBeStopped(t *testing.T) {
	silent := func(_ context.Context, carrier net.Conn, _ fake.Power) { _, _ = io.Copy(io.Discard, carrier) }
	k := start(t, silent)
	k.until("booting", func(st proto.WorkerStatus) bool { return st.Step == "booting the guest" })
	if _, err := k.dial().Call(t.Context(), proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: "true"}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a command before the guest is ready: %v", err)
	}
	k.call(proto.WorkerRequest{Op: proto.OpStop, GraceMS: 60_000})
	if st := k.ended(); st.State != lifecycle.Stopped || st.LastError != "" {
		t.Errorf("last status %+v", st)
	}
}

func TestAnImageThatCannotBeUsedIsTold(t *testing.T) {
	k := start(t, realGuest(t), func(_ *proto.VMSpec, cfg *Config) {
		cfg.Assets = func(context.Context, string) (*Boot, error) {
			return nil, fault.New(fault.Unavailable, "vmlinuz was altered")
		}
	})
	if st := k.ended(); st.State != lifecycle.Defunct || !strings.Contains(st.LastError, "vmlinuz was altered") {
		t.Errorf("last status %+v", st)
	}
}

func TestAnInstallationWithAPathTooLongForSocketsWorks______________(t *testing.T) {
	k := start(t, realGuest(t))
	if path := k.home.InstanceSocket(k.id); len(path) <= safesocket.MaxPath {
		t.Fatalf("%s is not long", path)
	}
	k.ready()
}

func TestADetachedCommandThatTheGuestNeverStartsEndsWithItsClient(t *testing.T) {
	dropped := make(chan struct{})
	k := start(t, pretend(t, func(st link.Stream) {
		defer close(dropped)
		_, _ = io.Copy(io.Discard, st) // takes the request, says nothing
	}))
	k.ready()
	conn := k.stream(proto.WorkerRequest{Op: proto.OpExec, Detach: true, Exec: &proto.ExecRequest{Command: "true"}})
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-dropped:
	case <-time.After(patience):
		t.Error("the guest's stream stays")
	}
}
