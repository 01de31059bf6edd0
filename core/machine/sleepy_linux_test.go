package machine

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"capsem/core/hypervisor"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
)

// sleepless is a machine that cannot be paused.
type sleepless struct {
	hypervisor.Machine
	tries atomic.Int32
}

func (s *sleepless) Pause(context.Context) error          { s.tries.Add(1); return errors.New("not now") }
func (s *sleepless) Resume(context.Context) error         { return nil }
func (s *sleepless) Save(context.Context, *os.File) error { return errors.New("not now") }

func TestAGuestThatAsksToBeSuspendedAgainAndAgainIsHeardOnce(t *testing.T) {
	vm := &sleepless{}
	w := &Worker{
		dir: paths.VM(t.TempDir()), log: quiet(), vm: vm, board: newBoard(proto.WorkerStatus{State: lifecycle.Running}),
		ending: &ending{asked: make(chan struct{}), now: make(chan struct{})}, spec: proto.VMSpec{ID: "vm", Name: "vm"},
	}
	for range 1000 {
		if r := w.lifecycle(context.Background(), proto.LifecycleRequest{Action: proto.ActionSuspend}); !r.OK {
			t.Fatal(r.Message)
		}
	}
	w.work.Wait()
	before := vm.tries.Load()
	if before == 0 || before > 10 { // one for each time that passes until the answer must have reached the guest
		t.Errorf("it was paused %d times", before)
	}
	if r := w.lifecycle(context.Background(), proto.LifecycleRequest{Action: proto.ActionSuspend}); !r.OK {
		t.Fatal(r.Message)
	}
	w.work.Wait()
	if n := vm.tries.Load(); n != before+1 {
		t.Errorf("asked again later it was paused %d times, after %d", n, before)
	}
}
