package machine

import (
	"sync"
	"testing"

	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func TestEveryWaiterSeesTheEnd(t *testing.T) {
	for range 200 {
		b := newBoard(proto.WorkerStatus{State: lifecycle.Booting})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					st, changed, final := b.get()
					if final {
						if st.State != lifecycle.Stopped {
							t.Errorf("the last state is %s", st.State)
						}
						return
					}
					<-changed
				}
			})
		}
		b.step("on its way")
		b.finish(func(st *proto.WorkerStatus) { st.State = lifecycle.Stopped })
		b.step("too late")
		wg.Wait()
	}
}

func TestIllegalMovesAreRefused(t *testing.T) {
	b := newBoard(proto.WorkerStatus{State: lifecycle.Stopped})
	if b.move(lifecycle.Running) {
		t.Error("a stopped VM runs without booting")
	}
	if !b.move(lifecycle.Booting) {
		t.Error("a stopped VM cannot boot")
	}
}
