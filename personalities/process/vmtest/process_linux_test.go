//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"capsem/core/assets/assetstest"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func arch() string { return runtime.GOARCH }

// TestOneVM shares one boot: what commands do, what they cost the worker, a reboot and a power-off from inside.
func TestOneVM(t *testing.T) {
	v := boot(t, assetstest.Home(t), "one")
	st := v.ready()
	t.Logf("ready after %v (%s, %s); idle worker: %d MiB", time.Duration(st.ReadyNS-st.StartedNS).Round(time.Millisecond),
		st.Accelerator, st.Carrier, resident(t, st.PID)>>20)
	if len(st.Failed) > 0 {
		t.Errorf("the guest reports %q", st.Failed)
	}
	// Each depends on the machine that the one before leaves: no subtest runs alone.
	commands(t, v)
	many(t, v)
	overhead(t, v)
	gigabyte(t, v, st.PID)
	reboot(t, v, st)
	v.run("poweroff")
	if st := v.left(); st.State != lifecycle.Stopped || st.LastError != "" || st.Reboots != 1 {
		t.Errorf("after a power-off: %+v", st)
	}
}

func commands(t *testing.T, v *vm) {
	t.Helper()
	if r := v.run(`echo "$OF_VM"; echo no >&2; exit 3`); r.stdout != "one\n" || r.stderr != "no\n" || r.exit.Code != 3 {
		t.Errorf("got %+v", r)
	}
	for path, code := range map[string]int{"/no/such/program": 127, "/etc/passwd": 126} {
		if r := collect(v.start(&proto.ExecRequest{Argv: []string{path}})); r.exit.Code != code || r.exit.Error == "" {
			t.Errorf("%s: %+v", path, r)
		}
	}
	if links := v.must("ls /sys/class/net | tr '\\n' ' '"); links != "dummy0 lo " {
		t.Errorf("the guest has %q", links)
	}
}

func many(t *testing.T, v *vm) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 20 {
		conn := v.start(&proto.ExecRequest{Command: fmt.Sprintf("for i in {1..500}; do echo line-%d; done; exit %d", i, i)})
		wg.Go(func() {
			if r := collect(conn); r.stdout != strings.Repeat(fmt.Sprintf("line-%d\n", i), 500) || r.exit.Code != i {
				t.Errorf("command %d: %d bytes, %+v, %v", i, len(r.stdout), r.exit, r.err)
			}
		})
	}
	wg.Wait()
}

// overhead shows what a round trip takes beyond the guest's own time for the command.
func overhead(t *testing.T, v *vm) {
	t.Helper()
	var all []time.Duration
	for range 100 {
		begin := time.Now()
		r := v.run("true")
		if r.err != nil || r.exit.Code != 0 {
			t.Fatalf("true: %+v", r)
		}
		all = append(all, time.Since(begin)-time.Duration(r.exit.DurationUS)*time.Microsecond)
	}
	slices.Sort(all)
	t.Logf("a round trip takes %v (median of %d) beyond the guest's own time", all[len(all)/2], len(all))
}

func gigabyte(t *testing.T, v *vm, pid int) {
	t.Helper()
	const all = 1 << 30
	begin := time.Now()
	conn := v.start(&proto.ExecRequest{Argv: []string{"head", "-c", "1073741824", "/dev/zero"}})
	defer conn.Close()
	frames := proto.NewStreamReader(conn)
	var got, most int64
	for looked := int64(0); ; {
		kind, data, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == proto.KindStdout {
			got += int64(len(data))
		}
		if got-looked > 32<<20 {
			looked, most = got, max(most, resident(t, pid))
		}
		if kind == proto.KindError {
			t.Fatalf("after %d bytes: %s", got, data)
		}
		if kind == proto.KindExit {
			break
		}
	}
	t.Logf("1 GiB in %v; the worker takes at most %d MiB, %d MiB afterwards", time.Since(begin).Round(time.Millisecond), most>>20, resident(t, pid)>>20)
	if got != all {
		t.Errorf("%d of %d bytes", got, all)
	}
	if most > 35<<20 {
		t.Errorf("the worker grows to %d MiB", most>>20)
	}
}

func reboot(t *testing.T, v *vm, before proto.WorkerStatus) {
	t.Helper()
	v.must("echo kept > /root/kept; sync; cat /proc/sys/kernel/random/boot_id > /root/boot")
	v.run("reboot")
	st := v.until(func(st proto.WorkerStatus) bool { return st.Reboots == 1 && st.State == lifecycle.Running })
	if st.HypervisorPID == before.HypervisorPID || st.PID != before.PID {
		t.Errorf("before %+v, after %+v", before, st)
	}
	if got := v.must("cat /root/kept; cmp -s /root/boot /proc/sys/kernel/random/boot_id || echo new"); got != "kept\nnew\n" {
		t.Errorf("after the reboot: %q", got)
	}
}

func TestADeadHypervisorIsTold(t *testing.T) {
	v := boot(t, assetstest.Home(t), "two")
	st := v.ready()
	if err := syscall.Kill(st.HypervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st := v.left(); st.State != lifecycle.Defunct || !strings.Contains(st.LastError, "hypervisor died") {
		t.Errorf("it left %+v", st)
	}
	// The same VM again, with the disk as it is; then its worker dies.
	v.launch()
	st = v.ready()
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if took := gone(t, st.HypervisorPID); took > time.Second {
		t.Errorf("QEMU outlives its worker by %v", took)
	}
	// And again, to be stopped by a signal.
	<-v.over
	if err := os.Remove(v.dir.Status()); err != nil {
		t.Fatal(err)
	}
	v.launch()
	v.ready()
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if st := v.left(); st.State != lifecycle.Stopped || v.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("it left %+v and exit code %d", st, v.cmd.ProcessState.ExitCode())
	}
}
