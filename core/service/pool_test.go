package service_test

import (
	"sync/atomic"
	"testing"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// pooled starts a service that keeps so many VMs ready.
func pooled(t *testing.T, opts service.Options, size *atomic.Int64) (*service.Service, func()) {
	t.Helper()
	settings := opts.Settings
	opts.Settings = func() (*config.Settings, error) {
		set, err := settings()
		set.VM.PoolSize = int(size.Load())
		return set, err
	}
	return servicetest.Start(t, opts)
}

func TestThePoolHandsReadyVMsOutOnce(t *testing.T) {
	home := servicetest.Home(t)
	var size atomic.Int64
	size.Store(2)
	s, stop := pooled(t, servicetest.Options(t, home), &size)
	await(t, "a full pool", func() bool { return s.Status().Pooled == 2 })
	if st := s.Status(); st.Running != 0 || len(s.List().Sandboxes) != 0 {
		t.Errorf("VMs of the pool are seen: %+v", st)
	}
	seen := map[string]bool{}
	for range 4 { // which is as many as may run: those of the pool do not count
		id := create(t, s, api.ProvisionRequest{})
		if seen[id] {
			t.Errorf("%s was handed out twice", id)
		}
		seen[id] = true
	}
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{}); err == nil {
		t.Error("more VMs run than may")
	}
	await(t, "a full pool again", func() bool { return s.Status().Pooled == 2 })
	for id := range seen {
		if vm := info(t, s, id); vm.Status != "Running" {
			t.Errorf("%+v", vm)
		}
		if err := s.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	// What is asked for otherwise is made.
	for _, req := range []api.ProvisionRequest{{Name: "named"}, {CPUs: 1}, {Env: map[string]string{"A": "b"}}} {
		before := s.Status()
		create(t, s, req)
		if st := s.Status(); st.Pooled != before.Pooled {
			t.Errorf("%+v is of the pool", req)
		}
	}
	stop()
	none := atomic.Int64{}
	s, _ = pooled(t, servicetest.Options(t, home), &none)
	if st := s.Status(); st.Pooled != 0 || st.Running != 3 {
		t.Errorf("after the service's end: %+v", st)
	}
}

func TestAPoolThatADeadServiceLeftIsUsed(t *testing.T) {
	home := servicetest.Home(t)
	var size atomic.Int64
	size.Store(2)
	opts := servicetest.Options(t, home)
	s, _ := pooled(t, opts, &size)
	await(t, "a full pool", func() bool { return s.Status().Pooled == 2 })
	service.Abandon(s) // another finds them as a crash would leave them
	size.Store(1)
	next, _ := pooled(t, servicetest.Options(t, home), &size)
	await(t, "a pool of one", func() bool { return next.Status().Pooled == 1 && next.Status().Running == 0 })
}
