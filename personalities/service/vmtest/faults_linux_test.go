//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// TestOneVMThroughEveryDeath takes one VM through the deaths of the service, of its worker and of its hypervisor.
func TestOneVMThroughEveryDeath(t *testing.T) {
	d := start(t)
	id := d.provision("")
	d.says(id, "echo kept > /root/file && sync && cat /root/file", "kept\n")
	job, err := d.Exec(t.Context(), id, api.ExecRequest{Command: "sleep 1000", Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	before := d.info(id)
	v, err := d.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.kill(v.PID)
	if !runs(before.PID) || !runs(before.HypervisorPID) {
		t.Fatal("the VM died with its service")
	}
	d.ensure()
	if after := d.info(id); after.PID != before.PID || after.Status != lifecycle.Running || after.HypervisorPID != before.HypervisorPID {
		t.Errorf("the new service has %+v", after)
	}
	if got, err := d.Job(t.Context(), id, job.Job, false); err != nil || got.State != proto.JobRunning {
		t.Errorf("the job of before: %+v, %v", got, err)
	}
	if err := d.Persist(t.Context(), id, "vm"); err != nil {
		t.Fatal(err)
	}
	d.says("vm", "cat /root/file", "kept\n")

	worker := d.info("vm")
	d.kill(worker.PID)
	d.await("the end of its hypervisor", func() bool { return !runs(worker.HypervisorPID) })
	d.defunct(worker)
	hypervisor := d.info("vm")
	d.kill(hypervisor.HypervisorPID)
	d.defunct(hypervisor)
	d.says("vm", "cat /root/file", "kept\n")
	stopped(t, d)
}

// defunct checks that the VM has died with words, and starts it again.
func (d *daemon) defunct(was api.SandboxInfo) {
	d.t.Helper()
	d.await("Defunct", func() bool { vm := d.info("vm"); return vm.Status == lifecycle.Defunct && vm.PID == 0 })
	if vm := d.info("vm"); vm.LastError == "" {
		d.t.Error("nothing says why")
	}
	logs, err := d.Logs(d.t.Context(), "vm", 20)
	if err != nil || logs.ProcessLogs == "" || !strings.Contains(logs.Logs, "== last error") {
		d.t.Errorf("logs: %+v, %v", logs, err)
	}
	if _, err := d.Exec(d.t.Context(), "vm", api.ExecRequest{Command: "true"}); !fault.Is(err, fault.Conflict) {
		d.t.Errorf("a command in a dead VM: %v", err)
	}
	if _, err := d.Resume(d.t.Context(), "vm"); err != nil {
		d.t.Fatal(err)
	}
	if vm := d.info("vm"); vm.Status != lifecycle.Running || vm.PID == was.PID {
		d.t.Errorf("resumed: %+v", vm)
	}
}

// stopped takes the VM down in order, and finds an altered image when it is to start again.
func stopped(t *testing.T, d *daemon) {
	t.Helper()
	if r, err := d.Stop(t.Context(), "vm"); err != nil || !r.Persistent {
		t.Errorf("stop: %+v, %v", r, err)
	}
	vm := d.info("vm")
	if vm.Status != lifecycle.Stopped || vm.LastError != "" {
		t.Errorf("stopped: %+v", vm)
	}
	kernel := filepath.Join(d.home.AssetVersion(vm.Version), "vmlinuz")
	text, err := os.ReadFile(kernel)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(kernel, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resume(t.Context(), "vm"); err == nil || !strings.Contains(fault.Line(err), "vmlinuz") {
		t.Errorf("an altered kernel: %v", err)
	}
	d.await("Defunct", func() bool { return d.info("vm").Status == lifecycle.Defunct })
	text[len(text)/2] ^= 1
	if err := os.WriteFile(kernel, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resume(t.Context(), "vm"); err != nil {
		t.Errorf("the kernel as it was: %v", err)
	}
	d.says("vm", "cat /root/file", "kept\n")
	if err := d.Delete(t.Context(), "vm"); err != nil {
		t.Error(err)
	}
	if list, err := d.List(t.Context()); err != nil || len(list.Sandboxes) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}
