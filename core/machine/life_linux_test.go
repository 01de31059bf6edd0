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
	k.stop()
	if st := k.ended(); st.State != lifecycle.Stopped {
		t.Errorf("last status %+v", st)
	}
}
