//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"capsem/core/guest/doctor"
	"capsem/core/guest/guesttest"
	"capsem/core/hypervisor"
	"capsem/core/proto"
)

// One machine serves all of it; the second boot on its disk shows what an orderly power-off has kept.
func TestGuest(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	disk := newDisk(t)
	v := create(ctx, t, disk)
	v.attach(ctx, t)
	for name, test := range map[string]func(context.Context, *testing.T, *vm){
		"boot": bootReport, "identity": identity, "doctor": inOrder, "commands": commands, "many commands": manyCommands, "slow reader": slowReader,
		"cancel": cancelled, "terminal": terminals, "files": wholeFiles, "reaping": reaping, "vsock": overVsock, "new session": newSession,
		"sysutil": powerCommands, "trust": trust,
	} {
		if !t.Run(name, func(t *testing.T) { test(ctx, t, v) }) && ctx.Err() != nil {
			return
		}
	}
	v.shell(ctx, t, "echo kept > /root/kept; (trap 'echo ended > /root/ended; exit' TERM; echo on > /run/trap; while :; do sleep 0.1; done) &>/dev/null & "+
		"until test -e /run/trap; do sleep 0.05; done")
	if err := v.Shutdown(ctx, 30_000, true); err != nil {
		t.Fatal(err)
	}
	v.ended(ctx, t, hypervisor.GuestReboot)
	v = create(ctx, t, disk)
	v.attach(ctx, t)
	if got := v.shell(ctx, t, "cat /root/kept /root/ended"); got != "kept\nended\n" {
		t.Errorf("after a restart the files hold %q", got)
	}
	if got := v.shell(ctx, t, "dmesg | grep -iE 'recovery|orphan|EXT4-fs error' || true"); got != "" {
		t.Errorf("the system disk was not unmounted: %s", got)
	}
	if err := v.Shutdown(ctx, 2000, false); err != nil {
		t.Fatal(err)
	}
	v.ended(ctx, t, hypervisor.GuestPoweroff)
}

func bootReport(_ context.Context, t *testing.T, v *vm) {
	var names []string
	for _, s := range v.Stages() {
		names = append(names, s.Name)
	}
	for _, want := range []string{"kernel", "mounts", "modules", "rootfs", "overlay", "network", "hardening", "agent"} {
		if !slices.Contains(names, want) {
			t.Errorf("stage %s is not among %q", want, names)
		}
	}
	if len(v.Failed()) > 0 {
		t.Errorf("failed: %q", v.Failed())
	}
}

func identity(ctx context.Context, t *testing.T, v *vm) {
	if got := v.shell(ctx, t, "hostname; cat /etc/hostname /etc/from-host; stat -c %a /etc/from-host; echo $FROM_HOST $CAPSEM_VM_ID"); got != "box\n"+"box\nplaced\n640\nyes vm-1\n" {
		t.Errorf("%q", got)
	}
	if got := v.shell(ctx, t, "ls /sys/class/net; cat /proc/sys/kernel/modules_disabled"); got != "dummy0\nlo\n1\n" {
		t.Errorf("%q", got)
	}
	v.shell(ctx, t, "date -s '2001-01-01' >/dev/null")
	if err := v.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if got := v.shell(ctx, t, "date +%s"); len(strings.TrimSpace(got)) != 10 || got < "1" || absolute(t, got) > time.Minute {
		t.Errorf("after a ping the clock says %s", got)
	}
}

// absolute is how far a time in seconds since 1970 is from now.
func absolute(t *testing.T, seconds string) time.Duration {
	return time.Since(time.Unix(int64(guesttest.PID(t, seconds)), 0)).Abs()
}

func inOrder(ctx context.Context, t *testing.T, v *vm) {
	got := v.run(ctx, t, &proto.ExecRequest{Argv: []string{"/run/capsem/bin/doctor", "--json"}})
	n := 0
	for line := range strings.Lines(got.Stdout) {
		var r doctor.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if !r.OK {
			t.Errorf("%+v", r)
		}
		n++
	}
	if n < 10 || got.Exit.Code != 0 {
		t.Errorf("%d checks, %+v", n, *got.Exit)
	}
	v.shell(ctx, t, "! mount -o remount,rw /run/capsem/lower && ! touch /run/capsem/lower/x && ! cp /bin/true /run/capsem/bin/agent")
}

func overVsock(ctx context.Context, t *testing.T, v *vm) {
	binary := filepath.Join(t.TempDir(), "vsock.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "guest", "-o", binary, "capsem/core/link/vsock")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v.program(ctx, t, binary, "/root/vsock.test")
	got := v.run(ctx, t, &proto.ExecRequest{Argv: []string{"/root/vsock.test", "-test.v", "-test.timeout=60s"}})
	if got.Exit.Code != 0 || !strings.Contains(got.Stdout, "--- PASS: TestLinkOverLoopback") {
		t.Errorf("%+v\n%s%s", *got.Exit, got.Stdout, got.Stderr)
	}
}

func newSession(ctx context.Context, t *testing.T, v *vm) {
	boot, pid := v.Ready().BootID, v.shell(ctx, t, "sleep 1000 &>/dev/null & echo $!")
	_ = v.Close()
	v.attach(ctx, t)
	if r := v.Ready(); r.BootID != boot || !r.Restored {
		t.Errorf("the guest greets the new session with %+v", r)
	}
	v.shell(ctx, t, "kill "+strings.TrimSpace(pid))
}

func wholeFiles(ctx context.Context, t *testing.T, v *vm) {
	want := bytes.Repeat([]byte("capsem\x00\xff\n"), 1<<20) // 9 MiB
	if r := v.put(ctx, t, &proto.FileRequest{Path: "a/b", Mode: 0o751, Parents: true}, bytes.NewReader(want)); !r.OK || r.Info.Mode != "0751" {
		t.Fatal(*r)
	}
	if got := v.file(ctx, t, &proto.FileRequest{Op: proto.FileRead, Path: "a/b"}); got.Data != string(want) {
		t.Errorf("%d bytes of %d came back", len(got.Data), len(want))
	}
	v.shell(ctx, t, "ln -s /etc/passwd /root/a/out")
	if got := v.file(ctx, t, &proto.FileRequest{Op: proto.FileRead, Path: "a/out"}); got.Result.OK || got.Data != "" {
		t.Errorf("a link was followed out of /root: %+v", *got.Result)
	}
	if got := v.file(ctx, t, &proto.FileRequest{Op: proto.FileList, Path: "a"}); strings.Count(got.Data, "\n") != 2 {
		t.Errorf("listed %s", got.Data)
	}
	if got := v.file(ctx, t, &proto.FileRequest{Op: proto.FileDelete, Path: "a", Recursive: true}); !got.Result.OK {
		t.Error(*got.Result)
	}
	v.shell(ctx, t, "test ! -e /root/a && test -s /etc/passwd")
}
