//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/boot"
	"capsem/core/guest/layout"
)

// modulesLocked checks that no kernel module can be loaded any more.
func modulesLocked(_ context.Context, s *System) (string, error) {
	text, err := os.ReadFile(s.proc("sys/kernel/modules_disabled"))
	if errors.Is(err, os.ErrNotExist) {
		return "the kernel has no modules", nil
	}
	if err != nil {
		return "", fmt.Errorf("look at the lock: %w", err)
	}
	if strings.TrimSpace(string(text)) != "1" {
		return "", errors.New("kernel modules can still be loaded")
	}
	return "no module can be loaded", nil
}

// kernelSettings checks that the kernel is as PID 1 has set it.
func kernelSettings(_ context.Context, s *System) (string, error) {
	var wrong []string
	n := 0
	for _, want := range boot.Sysctls() {
		text, err := os.ReadFile(s.proc("sys/" + want.Name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		n++
		if got := strings.TrimSpace(string(text)); err != nil || got != want.Value {
			wrong = append(wrong, fmt.Sprintf("%s is %q, not %s", want.Name, got, want.Value))
		}
	}
	if len(wrong) > 0 {
		return "", errors.New(strings.Join(wrong, "; "))
	}
	return fmt.Sprintf("%d settings are in force", n), nil
}

// noKernelMemory checks that the kernel's memory cannot be read through a device.
func noKernelMemory(context.Context, *System) (string, error) {
	for _, path := range []string{"/dev/mem", "/dev/kmem", "/dev/port"} {
		if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			return "", errors.Join(fmt.Errorf("%s can be opened", path), f.Close())
		}
	}
	if entries, err := os.ReadDir("/sys/kernel/debug"); err == nil && len(entries) > 0 {
		return "", errors.New("debugfs is mounted")
	}
	return "/dev/mem, /dev/port and debugfs are out of reach", nil
}

// lockdown checks that the kernel refuses its memory even to a device node that root makes for itself.
func lockdown(context.Context, *System) (string, error) {
	const node = "/dev/.capsem-doctor"
	err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))) //nolint:gosec // a small number
	if err != nil {
		return "cannot even make a device node", nil //nolint:nilerr // better still
	}
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	gone := os.Remove(node)
	if err == nil {
		return "", errors.Join(errors.New("root can open the kernel's memory"), f.Close(), gone)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENXIO) {
		return "the kernel's memory is closed to root", gone
	}
	return "", errors.Join(fmt.Errorf("try the kernel's memory: %w", err), gone)
}

// clock checks that the time is at least plausible: the host compares it with its own.
func clock(context.Context, *System) (string, error) {
	now := time.Now().UTC()
	if now.Year() < 2025 || now.Year() > 2200 {
		return "", fmt.Errorf("it is %s here", now.Format(time.RFC3339))
	}
	return now.Format(time.RFC3339), nil
}

// environment checks what commands are given.
func environment(_ context.Context, s *System) (string, error) {
	for key, want := range map[string]string{"HOME": layout.Home, "IS_SANDBOX": "1", "LANG": "C.UTF-8"} {
		if got := s.Getenv(key); got != want {
			return "", fmt.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	for _, key := range []string{"PATH", "TERM", "CAPSEM_VM_ID"} {
		if s.Getenv(key) == "" {
			return "", fmt.Errorf("%s is not set", key)
		}
	}
	return "VM " + s.Getenv("CAPSEM_VM_ID"), nil
}

// agentRuns checks that the agent serves other processes.
func agentRuns(ctx context.Context, _ *System) (string, error) {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unix", layout.LinkSocket)
	if err != nil {
		return "", fmt.Errorf("reach the agent: %w", err)
	}
	return "answers", conn.Close() //nolint:wrapcheck // never fails
}
