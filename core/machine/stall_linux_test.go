package machine

import (
	"context"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/guest/guesttest"
	"capsem/core/hypervisor"
	"capsem/core/proto"
)

// stalling is a driver whose machines can be said to stand still.
type stalling struct {
	hypervisor.Driver
	told chan func(why string)
}

func (d stalling) Create(ctx context.Context, s hypervisor.Spec) (hypervisor.Machine, error) {
	d.told <- s.OnStall
	return d.Driver.Create(ctx, s)
}

func TestAVMThatStandsStillSaysWhyAndGoesOn(t *testing.T) {
	d := stalling{told: make(chan func(string), 1)}
	k := start(t, realGuest(t), func(_ *proto.VMSpec, cfg *Config) {
		d.Driver = cfg.Driver
		cfg.Driver = d
	})
	k.ready()
	c := k.dial()
	stall := <-d.told
	stall("the host's disk is full")
	_, err := c.Call(t.Context(), proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: "true"}})
	if !fault.Is(err, fault.NoSpace) || !strings.Contains(err.Error(), "stands still: the host's disk is full") {
		t.Errorf("a command is answered with %v", err)
	}
	if st := k.call(proto.WorkerRequest{Op: proto.OpStatus}).Status; st.Step != "standing still: the host's disk is full" {
		t.Errorf("its status: %+v", st)
	}
	stall("")
	if o := guesttest.Collect(t, k.shell("echo on")); o.Stdout != "on\n" {
		t.Errorf("afterwards: %+v", o)
	}
	if st := k.call(proto.WorkerRequest{Op: proto.OpStatus}).Status; st.Step != "" {
		t.Errorf("its status: %+v", st)
	}
}
