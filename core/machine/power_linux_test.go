package machine

import (
	"context"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/fake"
	"capsem/core/lifecycle"
	"capsem/core/link"
	"capsem/core/proto"
	"capsem/core/safesocket"
	"capsem/core/workerclient"
)

// asking is a guest that can be made to ask for something on the lifecycle port, as sysutil does, and obeys a shutdown only
// if it is obedient.
func asking(t *testing.T, obedient bool, ask <-chan proto.LifecycleAction, replies chan<- proto.LifecycleReply) func(context.Context, net.Conn, fake.Power) {
	return func(ctx context.Context, carrier net.Conn, press fake.Power) {
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
			switch m := m.(type) {
			case proto.BootConfigDone:
				_ = proto.WriteGuest(control, proto.BootReady{})
				_ = proto.WriteGuest(control, proto.BootTiming{})
				go func() {
					for action := range ask {
						st, err := s.Open(ctx, proto.StreamHeader{Port: proto.PortLifecycle, Process: "sysutil"})
						if err != nil {
							return
						}
						var reply proto.LifecycleReply
						_ = proto.WriteFrame(st, proto.LifecycleRequest{Action: action})
						_ = proto.ReadFrame(st, proto.MaxFrame, &reply)
						_ = st.Close()
						replies <- reply
					}
				}()
			case proto.Shutdown:
				if !obedient {
					continue
				}
				if m.Reboot {
					press(hypervisor.GuestReboot)
				} else {
					press(hypervisor.GuestPoweroff)
				}
			}
		}
	}
}

// hurried gives guests little time to obey.
func hurried(_ *proto.VMSpec, cfg *Config) {
	cfg.grace, cfg.slack = time.Millisecond, 50*time.Millisecond
}

func TestTheGuestEndsItsOwnVM(t *testing.T) {
	ask, replies := make(chan proto.LifecycleAction), make(chan proto.LifecycleReply)
	defer close(ask)
	k := start(t, asking(t, true, ask, replies))
	k.ready()
	ask <- proto.ActionSuspend
	if r := <-replies; r.OK || !strings.Contains(r.Message, "capsem persist") {
		t.Errorf("suspend: %+v", r)
	}
	ask <- proto.ActionPoweroff
	<-replies // it may have been cut off
	if st := k.ended(); st.State != lifecycle.Stopped || st.LastError != "" {
		t.Errorf("last status %+v", st)
	}
}

func TestARebootFromInsideStartsTheMachineAgain(t *testing.T) {
	for name, obedient := range map[string]bool{"that obeys": true, "that has to be helped": false} {
		t.Run(name, func(t *testing.T) {
			ask, replies := make(chan proto.LifecycleAction), make(chan proto.LifecycleReply)
			defer close(ask)
			k := start(t, asking(t, obedient, ask, replies), hurried)
			first := k.ready()
			ask <- proto.ActionReboot
			<-replies
			st := k.until("a reboot", func(st proto.WorkerStatus) bool { return st.Reboots == 1 && st.State == lifecycle.Running })
			if st.ReadyNS <= first.ReadyNS || st.StartedNS != first.StartedNS {
				t.Errorf("before %+v, after %+v", first, st)
			}
		})
	}
}

func TestAStopDoesNotWaitForAGuestForever(t *testing.T) {
	ask, replies := make(chan proto.LifecycleAction), make(chan proto.LifecycleReply)
	defer close(ask)
	k := start(t, asking(t, false, ask, replies))
	k.ready()
	stopped := make(chan error, 1)
	c := k.dial()
	go func() {
		_, err := c.Call(context.WithoutCancel(t.Context()), proto.WorkerRequest{Op: proto.OpStop, GraceMS: 60_000})
		stopped <- err
	}()
	k.until("stopping", func(st proto.WorkerStatus) bool { return st.State == lifecycle.Stopping })
	if _, err := k.dial().Call(t.Context(), proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: "true"}}); err == nil {
		t.Log("a command still runs while the VM stops")
	}
	k.call(proto.WorkerRequest{Op: proto.OpKill})
	if err := <-stopped; err != nil {
		t.Errorf("who asked for the stop is told %v", err)
	}
	if st := k.ended(); st.State != lifecycle.Stopped {
		t.Errorf("last status %+v", st)
	}
}

func TestAPanicIsToldFromAPowerOff(t *testing.T) {
	press := make(chan fake.Power, 1)
	serve := realGuest(t)
	k := start(t, func(ctx context.Context, carrier net.Conn, p fake.Power) {
		press <- p
		serve(ctx, carrier, p)
	})
	k.ready()
	(<-press)(hypervisor.GuestPanic)
	if st := k.ended(); st.State != lifecycle.Defunct || !strings.Contains(st.LastError, "panicked") {
		t.Errorf("last status %+v", st)
	}
}

func TestAGuestThatPanicsBeforeItIsReadyIsBootedOnceMore(t *testing.T) {
	for name, c := range map[string]struct {
		panics int32
		want   lifecycle.State
	}{"once": {1, lifecycle.Running}, "always": {9, lifecycle.Defunct}} {
		t.Run(name, func(t *testing.T) {
			var boots atomic.Int32
			serve := realGuest(t)
			k := start(t, func(ctx context.Context, carrier net.Conn, p fake.Power) {
				if boots.Add(1) <= c.panics {
					p(hypervisor.GuestPanic)
					return
				}
				serve(ctx, carrier, p)
			})
			end := k.ended
			if c.want == lifecycle.Running {
				end = k.ready
			}
			if st := end(); st.State != c.want || boots.Load() != 2 {
				t.Errorf("after %d boots: %+v", boots.Load(), st)
			}
		})
	}
}

func TestAPausedVMGoesOn(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	k.call(proto.WorkerRequest{Op: proto.OpPause})
	k.call(proto.WorkerRequest{Op: proto.OpResume})
	if o := collect(t, k.shell("echo on")); o.stdout != "on\n" {
		t.Errorf("got %+v", o)
	}
}

func TestARunningVMTakesAName(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	conn := k.shell("read line; echo $line")
	named := k.home.Persistent("box")
	if err := os.MkdirAll(k.home.PersistentDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(k.dir.Dir(), named.Dir()); err != nil {
		t.Fatal(err)
	}
	spec := k.w.spec
	spec.ID, spec.Name, spec.FormerID = "box", "box", "vm-1"
	k.describe(named, spec)
	other := proto.WorkerRequest{Op: proto.OpRelocate, Dir: k.home.Persistent("other").Dir(), ID: "box", Name: "box"}
	if _, err := k.dial().Call(t.Context(), other); err == nil {
		t.Error("it moves to a directory that is not there")
	}
	k.call(proto.WorkerRequest{Op: proto.OpRelocate, Dir: named.Dir(), ID: "box", Name: "box"})
	if _, err := workerclient.Dial(t.Context(), k.home.InstanceSocket("vm-1")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the old socket still answers: %v", err)
	}
	for id, want := range map[string]bool{"vm-1": false, "box": true} {
		if _, held, err := guard.Holder(k.home.InstanceLock(id)); err != nil || held != want {
			t.Errorf("lock of %s: held %v, %v", id, held, err)
		}
	}
	k.id, k.dir = "box", named
	if err := proto.WriteStreamFrame(conn, proto.KindStdin, []byte("still here\n")); err != nil {
		t.Fatal(err)
	}
	if o := collect(t, conn); o.stdout != "still here\n" {
		t.Errorf("a command of before: %+v", o)
	}
	if st := k.call(proto.WorkerRequest{Op: proto.OpStatus}).Status; st.ID != "box" || st.Name != "box" {
		t.Errorf("status %+v", st)
	}
	k.call(proto.WorkerRequest{Op: proto.OpStop, GraceMS: 100})
	if st := k.ended(); st.ID != "box" || st.State != lifecycle.Stopped {
		t.Errorf("last status %+v", st)
	}
}

func TestOneWorkerPerVM(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	again, err := New(k.w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another worker") {
		t.Errorf("a second worker: %v", err)
	}
	k.call(proto.WorkerRequest{Op: proto.OpStatus})
}

func TestWhoSpeaksAnotherProtocolIsToldOurs(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	conn, err := safesocket.Dial(t.Context(), k.home.InstanceSocket(k.id))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var hello proto.WorkerHello
	if err := proto.WriteFrame(conn, proto.WorkerHello{Protocol: proto.Version + 1}); err != nil {
		t.Fatal(err)
	}
	if err := proto.ReadFrame(conn, proto.MaxHeader, &hello); err != nil || hello.Protocol != proto.Version || hello.PID != os.Getpid() {
		t.Errorf("hello %+v, %v", hello, err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("it goes on talking")
	}
}
