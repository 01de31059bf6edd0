package machine

import (
	"testing"

	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func TestACommandRunsAndTheVMStops(t *testing.T) {
	k := start(t, realGuest(t))
	st := k.ready()
	if st.ID != "vm-1" || st.ReadyNS == 0 || st.Accelerator != "tcg" || st.Step != "" {
		t.Errorf("status %+v", st)
	}
	o := collect(t, k.shell(`echo "$OF_VM"; echo bad >&2; exit 3`))
	if o.stdout != "yes\n" || o.stderr != "bad\n" || o.exit == nil || o.exit.Code != 3 || o.started.Job != "j1" {
		t.Errorf("got %+v", o)
	}
	k.call(proto.WorkerRequest{Op: proto.OpStop, GraceMS: 1000})
	if st := k.ended(); st.State != lifecycle.Stopped || st.LastError != "" {
		t.Errorf("last status %+v", st)
	}
}

func TestTheEndOfTheContextStopsTheGuestInOrder(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	conn := k.shell("exec sleep 1000")
	if kind, _, err := proto.NewStreamReader(conn).Next(); err != nil || kind != proto.KindStarted {
		t.Fatal(kind, err)
	}
	k.stop()
	if o := collect(t, conn); o.fail == nil || o.fail.Message != "VM vm-1 was stopped while this was going on" {
		t.Errorf("a command's client is told %+v, %+v", o.fail, o.exit)
	}
	if st := k.ended(); st.State != lifecycle.Stopped {
		t.Errorf("last status %+v", st)
	}
}
