package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
)

// probeTime is how long KVM gets to run a handful of instructions; where it works that takes some 100 ms, all of it QEMU.
const probeTime = 3 * time.Second

// probeUID is who the test runs as when we are root: as little as the machines will be, or a /dev/kvm that only root may
// open would pass the test and then fail every machine. No machine is given this number.
const probeUID = 64_900_000

// probe is a machine that runs a few instructions and ends.
type probe struct {
	args []string
	// firmware is what the CPU finds at its reset address; exit the code with which QEMU then ends.
	firmware []byte
	exit     int
}

func probeFor(arch string) (probe, error) {
	switch arch {
	case "amd64":
		// A PC starts at 16 bytes below the end of its firmware: mov dx,0xf4; mov al,0x11; out dx,al; hlt.
		// isa-debug-exit makes of the written byte n the exit code 2n+1.
		rom := make([]byte, 64<<10)
		copy(rom[len(rom)-16:], []byte{0xba, 0xf4, 0x00, 0xb0, 0x11, 0xee, 0xf4})
		return probe{args: []string{"-machine", "pc", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"}, firmware: rom, exit: 2*0x11 + 1}, nil
	case "arm64":
		// virt starts at the beginning of its flash: mov w0,#8; movk w0,#0x8400,lsl #16; hvc #0 (PSCI SYSTEM_OFF); b .
		rom := make([]byte, 64<<10)
		copy(rom, []byte{0x00, 0x01, 0x80, 0x52, 0x00, 0x80, 0xb0, 0x72, 0x02, 0x00, 0x00, 0xd4, 0x00, 0x00, 0x00, 0x14})
		return probe{args: []string{"-machine", "virt,gic-version=max"}, firmware: rom, exit: 0}, nil
	}
	return probe{}, fmt.Errorf("no test is known for architecture %s", arch)
}

// errHung is a guest that was started and did nothing. It is what costs time to find out, and seldom goes away.
var errHung = fmt.Errorf("a guest did not run within %s", probeTime)

// Probe runs the test under KVM; the error says what is wrong with it.
func Probe(ctx context.Context, program string) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("/dev/kvm cannot be opened: %w", errors.Unwrap(err))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("/dev/kvm: %w", err)
	}
	return runProbe(ctx, program, "kvm", "host")
}

func runProbe(ctx context.Context, program, accel, cpu string) error {
	p, err := probeFor(runtime.GOARCH)
	if err != nil {
		return err
	}
	rom, err := memFile("firmware", p.firmware)
	if err != nil {
		return err
	}
	defer rom.Close()
	limited, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var words tail
	cmd := exec.CommandContext(limited, program, append(p.args, "-accel", accel, "-cpu", cpu, "-m", "32M", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-sandbox", sandbox, "-bios", "/proc/self/fd/3")...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles, cmd.Stderr = []string{}, "/", []*os.File{rom}, &words
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: credential(probeUID, probeUID, hypervisor.Accelerator(accel)),
	}
	// The kernel's "parent death" means that of the thread that started it.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("run test: %w", context.Cause(ctx))
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == p.exit:
		return nil
	case limited.Err() != nil:
		return fmt.Errorf("/dev/kvm opens, but %w", errHung)
	}
	text, _, _ := strings.Cut(words.String(), "\n")
	if text == "" {
		text = fmt.Sprint(err)
	}
	return fmt.Errorf("%.200s", text)
}

// memFile is an unnamed file with that content.
func memFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", name, err), f.Close())
	}
	return f, nil
}
