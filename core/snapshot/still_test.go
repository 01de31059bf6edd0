package snapshot

import (
	"context"
	"testing"

	"capsem/core/fault"
)

func TestWhoCopiesTheWorkspaceFindsNoHalfRevert(t *testing.T) {
	half, goOn := make(chan struct{}), make(chan struct{})
	reverting := false
	r := newRig(t, func(o *Options) {
		o.during = func(step, _ string) {
			if step == "apply" && reverting {
				reverting = false
				close(half)
				<-goOn
			}
		}
	})
	r.write("a", "old")
	r.write("b", "old")
	id := r.manual("one")
	r.write("a", "new")
	r.write("b", "new")
	reverting = true
	done := make(chan error)
	go func() {
		_, err := r.s.Revert(context.Background(), "", id)
		done <- err
	}()
	<-half
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.s.Still(ctx); err == nil {
		t.Error("half a revert is called still")
	}
	close(goOn)
	still, err := r.s.Still(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := r.tree(); got["a"] != got["b"] {
		t.Errorf("there is %v", got)
	}
	still()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := r.s.Revert(context.Background(), "", id); !fault.Is(err, fault.Conflict) {
		t.Errorf("afterwards: %v", err)
	}
}
