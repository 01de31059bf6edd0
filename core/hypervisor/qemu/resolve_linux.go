package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/hypervisor"
	"capsem/core/paths"
)

const (
	// failureLasts is how long KVM that QEMU said no to at once is not tried again: a test is cheap then, and what is missing, such
	// as a right or a module, may be put right at any time.
	failureLasts = 10 * time.Minute
	// hangLasts is the same for KVM under which a guest hung: each test takes all its time.
	hangLasts = 24 * time.Hour
)

// verdict is the remembered outcome of a probe, for one kernel, QEMU and kind of CPU.
type verdict struct {
	Host string `json:"host"`
	KVM  bool   `json:"kvm"`
	Why  string `json:"why"`
	// Hung says that KVM's no was a guest that did nothing; At is when it was found.
	Hung bool      `json:"hung,omitempty"`
	At   time.Time `json:"at"`
}

// holds reports whether a verdict may still be believed. A yes is until the host changes; a no runs out, and one from the
// future is of a clock that was wrong.
func (v verdict) holds(now time.Time) bool {
	lasts := failureLasts
	if v.Hung {
		lasts = hangLasts
	}
	age := now.Sub(v.At)
	return v.KVM || (age >= 0 && age < lasts)
}

// Resolve turns auto into an accelerator that works here, and says why (design D4). KVM is tried once with a real boot,
// since /dev/kvm may exist and never run a guest; the verdict is remembered under home until kernel, QEMU or CPU change, a no
// not for so long (failureLasts, hangLasts). KVM that is insisted on is tried again when the verdict was no; if it does not
// work then, it is a fault.
func Resolve(ctx context.Context, home paths.Home, want hypervisor.Accelerator) (accelerator hypervisor.Accelerator, why string, err error) {
	if want == hypervisor.TCG {
		return hypervisor.TCG, "asked for in the settings", nil
	}
	program, err := Program(runtime.GOARCH)
	if err != nil {
		return "", "", err
	}
	v, err := remembered(ctx, home, program, want == hypervisor.KVM)
	switch {
	case err != nil:
		return "", "", err
	case v.KVM:
		return hypervisor.KVM, v.Why, nil
	case want == hypervisor.KVM:
		return "", "", fault.New(fault.Unavailable, "%s", v.Why).
			WithHint("set vm.accelerator to auto or tcg in user.toml, or make /dev/kvm usable")
	}
	return hypervisor.TCG, v.Why, nil
}

// remembered returns the verdict for this host, from the file or from a new probe. With insist a no is not taken from the file.
func remembered(ctx context.Context, home paths.Home, program string, insist bool) (verdict, error) {
	host, err := identity(program)
	if err != nil {
		return verdict{}, err
	}
	if v, ok := load(home.AcceleratorVerdict()); ok && v.Host == host && v.holds(time.Now()) && (v.KVM || !insist) {
		return v, nil
	}
	if err := os.MkdirAll(home.Run(), 0o700); err != nil {
		return verdict{}, fmt.Errorf("remember accelerator: %w", err)
	}
	// Probes at the same time would only disturb each other; who comes second probes as well, when the first is done or not.
	lock, err := guard.Acquire(home.AcceleratorVerdict() + ".lock")
	if err == nil {
		defer lock.Release() //nolint:errcheck // the kernel lets go of it anyway
	} else if !errors.Is(err, guard.ErrHeld) {
		return verdict{}, fmt.Errorf("remember accelerator: %w", err)
	}
	v := verdict{Host: host, KVM: true, Why: "KVM booted a test", At: time.Now()}
	if err := Probe(ctx, program); err != nil {
		if ctx.Err() != nil {
			return verdict{}, fmt.Errorf("try KVM: %w", context.Cause(ctx))
		}
		v = verdict{Host: host, Why: "KVM does not run guests here: " + err.Error(), Hung: errors.Is(err, errHung), At: time.Now()}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return verdict{}, fmt.Errorf("remember accelerator: %w", err)
	}
	return v, atomicfile.Write(home.AcceleratorVerdict(), append(text, '\n'), 0o600) //nolint:wrapcheck // says what it did
}

// load reads the file; one that is absent, damaged or too long is as none.
func load(path string) (v verdict, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return v, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return v, err == nil && json.Unmarshal(text, &v) == nil && v.Host != ""
}

// identity tells whether a verdict still speaks of this host: the kernel, the QEMU binary, the CPU, and who may use /dev/kvm.
func identity(program string) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("name kernel: %w", err)
	}
	path, err := filepath.EvalSymlinks(program)
	if err != nil {
		return "", fmt.Errorf("find QEMU: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find QEMU: %w", err)
	}
	device := "no /dev/kvm"
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		device = "/dev/kvm"
		if info, err := f.Stat(); err == nil {
			group, _ := groupOf(info)
			device = fmt.Sprintf("/dev/kvm %s %d", info.Mode().Perm(), group)
		}
		_ = f.Close()
	}
	return strings.Join([]string{
		unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), cpuModel(), binary(path, info), device,
	}, "; "), nil
}

// binary tells one build of QEMU from another.
func binary(path string, info os.FileInfo) string {
	return fmt.Sprintf("%s; %d %d", path, info.Size(), info.ModTime().UnixNano())
}

// cpuModel is what the kernel calls the CPU; empty when it does not.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
