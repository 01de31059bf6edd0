//go:build linux

package sysutil

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/guest/pid1"
	"capsem/core/proto"
)

// host answers one request on a socket and notes it.
func host(t *testing.T, reply proto.LifecycleReply) (socket string, asked func() proto.LifecycleRequest) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var req proto.LifecycleRequest
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var h proto.StreamHeader
		if proto.ReadFrame(conn, proto.MaxHeader, &h) != nil || h.Port != proto.PortLifecycle || proto.ReadFrame(conn, proto.MaxFrame, &req) != nil {
			return
		}
		_ = proto.WriteFrame(conn, reply)
	})
	return socket, func() proto.LifecycleRequest {
		_ = l.Close()
		wg.Wait()
		return req
	}
}

func TestCommandsAskTheHost(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]proto.LifecycleAction{
		"shutdown": proto.ActionPoweroff, "/sbin/shutdown -h now": proto.ActionPoweroff, "shutdown -r +0": proto.ActionReboot,
		"halt -f": proto.ActionPoweroff, "poweroff --no-wall": proto.ActionPoweroff, "reboot": proto.ActionReboot, "suspend": proto.ActionSuspend,
		"sysutil reboot": proto.ActionReboot,
	} {
		socket, asked := host(t, proto.LifecycleReply{OK: true})
		var out strings.Builder
		tool := Tool{Socket: socket, Out: &out, Kill: func(int, unix.Signal) error { t.Error("PID 1 was told"); return nil }}
		err := tool.Run(t.Context(), strings.Fields(line))
		if got := asked(); err != nil || got.Action != want {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
}

func TestARefusalIsShown(t *testing.T) {
	t.Parallel()
	socket, _ := host(t, proto.LifecycleReply{Message: "this VM has no name"})
	var out strings.Builder
	err := Tool{Socket: socket, Out: &out, Kill: func(int, unix.Signal) error { t.Error("PID 1 was told"); return nil }}.Run(t.Context(), []string{"suspend"})
	if err == nil || !strings.Contains(err.Error(), "this VM has no name") {
		t.Errorf("%v", err)
	}
}

func TestWithoutAHostPID1IsTold(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]unix.Signal{"poweroff": pid1.SignalPoweroff, "reboot": pid1.SignalReboot, "suspend": 0} {
		var told unix.Signal
		var out strings.Builder
		tool := Tool{Socket: filepath.Join(t.TempDir(), "none"), Out: &out, Kill: func(pid int, sig unix.Signal) error {
			if pid != 1 {
				t.Errorf("signal to %d", pid)
			}
			told = sig
			return nil
		}}
		err := tool.Run(context.WithoutCancel(t.Context()), []string{name})
		if told != want || (err != nil) != (want == 0) {
			t.Errorf("%s: PID 1 was told %v; %v", name, told, err)
		}
	}
}

func TestWhatCannotBeDoneIsRefusedBeforeAnythingHappens(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"shutdown +5", "shutdown 23:00", "shutdown -c", "sysutil frobnicate"} {
		var out strings.Builder
		tool := Tool{Socket: filepath.Join(t.TempDir(), "none"), Out: &out, Kill: func(int, unix.Signal) error { t.Errorf("%s: PID 1 was told", line); return nil }}
		if err := tool.Run(t.Context(), strings.Fields(line)); err == nil {
			t.Errorf("%s is taken: %s", line, out.String())
		}
	}
}
