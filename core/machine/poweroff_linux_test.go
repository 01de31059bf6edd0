package machine

import (
	"context"
	"net"
	"testing"

	"capsem/core/hypervisor"
	"capsem/core/hypervisor/fake"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// counted is a real guest that says when it obeyed a power-off. Before it serves a carrier it calls meet.
func counted(t *testing.T, meet func(carrier net.Conn)) (guest func(context.Context, net.Conn, fake.Power), obeyed chan hypervisor.ExitReason) {
	obeyed = make(chan hypervisor.ExitReason, 1)
	serve := realGuest(t)
	return func(ctx context.Context, carrier net.Conn, press fake.Power) {
		meet(carrier)
		serve(ctx, carrier, func(reason hypervisor.ExitReason) {
			obeyed <- reason
			press(reason)
		})
	}, obeyed
}

func checkOrderly(t *testing.T, k *worker, obeyed <-chan hypervisor.ExitReason) {
	t.Helper()
	if st := k.ended(); st.State != lifecycle.Stopped || st.LastError != "" {
		t.Errorf("last status %+v", st)
	}
	select {
	case reason := <-obeyed:
		if reason != hypervisor.GuestPoweroff {
			t.Errorf("it ended by %s", reason)
		}
	default:
		t.Error("its power was cut")
	}
}

func TestAPausedGuestPowersOffInOrder(t *testing.T) {
	guest, obeyed := counted(t, func(net.Conn) {})
	k := start(t, guest)
	k.ready()
	k.call(proto.WorkerRequest{Op: proto.OpPause})
	k.call(proto.WorkerRequest{Op: proto.OpStop, GraceMS: 60_000})
	checkOrderly(t, k, obeyed)
}

func TestAGuestWhoseLinkIsBeingMadeAnewPowersOffInOrder(t *testing.T) {
	carriers, serve := make(chan net.Conn, 10), make(chan struct{})
	first := true
	guest, obeyed := counted(t, func(carrier net.Conn) {
		carriers <- carrier
		if !first {
			<-serve
		}
		first = false
	})
	k := start(t, guest)
	k.ready()
	if err := (<-carriers).Close(); err != nil {
		t.Fatal(err)
	}
	<-carriers // the second one: nobody answers there for now
	stopped := make(chan error, 1)
	c := k.dial()
	go func() {
		_, err := c.Call(context.WithoutCancel(t.Context()), proto.WorkerRequest{Op: proto.OpStop, GraceMS: 60_000})
		stopped <- err
	}()
	k.until("stopping", func(st proto.WorkerStatus) bool { return st.State == lifecycle.Stopping })
	close(serve)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	checkOrderly(t, k, obeyed)
}
