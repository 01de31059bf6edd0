package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/guestlink"
	"capsem/core/link"
	"capsem/core/proto"
)

// bareVM is the guest of capsem booted by QEMU alone: no sandbox, no service, no worker, files by path.
type bareVM struct {
	cmd     *exec.Cmd
	session link.Session
	agent   *guestlink.Agent
}

// bareSpec is what makes the comparison fair: the same machine, kernel, initrd, root image and kernel command line as the
// VM that capsem runs, read off its QEMU process, and a disk formatted beforehand.
type bareSpec struct {
	program string
	args    []string
	disk    string
}

// bareLike reads the spec off a running VM.
func (b *bench) bareLike(ctx context.Context, vm *api.SandboxInfo) (*bareSpec, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", vm.HypervisorPID))
	if err != nil {
		return nil, fmt.Errorf("read the command line of QEMU: %w", err)
	}
	argv := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	program, err := exec.LookPath(filepath.Base(argv[0]))
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w", err)
	}
	set := b.home.AssetVersion(vm.Version)
	roots, err := filepath.Glob(filepath.Join(set, "rootfs.*"))
	if err != nil || len(roots) != 1 {
		return nil, fmt.Errorf("no single root image in %s: %w", set, errors.Join(err, os.ErrNotExist))
	}
	disk := filepath.Join(b.tmp, "overlay.raw")
	if err := formatted(ctx, disk, vm.DiskMB); err != nil {
		return nil, err
	}
	args := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-nic", "none",
		"-m", strconv.Itoa(vm.RAMMB), "-smp", strconv.Itoa(vm.CPUs),
		"-kernel", filepath.Join(set, "vmlinuz"), "-initrd", filepath.Join(set, "initrd.img"),
		"-drive", "if=none,id=root,format=raw,readonly=on,file=" + roots[0], "-device", "virtio-blk-pci,drive=root",
		"-drive", "if=none,id=disk,format=raw,file=" + disk, "-device", "virtio-blk-pci,drive=disk",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=link,fd=3", "-device", "virtserialport,chardev=link,name=capsem.link",
		"-chardev", "file,id=console,path=" + filepath.Join(b.tmp, "console.log"), "-serial", "chardev:console",
	}
	for _, option := range []string{"-machine", "-cpu", "-accel", "-append"} {
		if i := slices.Index(argv, option); i >= 0 && i+1 < len(argv) {
			args = append(args, option, withoutBackend(argv[i+1]))
		}
	}
	return &bareSpec{program: program, args: args, disk: disk}, nil
}

// withoutBackend drops memory-backend=ID from a -machine option: the object it names is not made here.
func withoutBackend(option string) string {
	parts := slices.DeleteFunc(strings.Split(option, ","), func(p string) bool { return strings.HasPrefix(p, "memory-backend=") })
	return strings.Join(parts, ",")
}

// formatted makes a sparse file with an empty ext4.
func formatted(ctx context.Context, path string, megabytes int) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if err := errors.Join(f.Truncate(int64(megabytes)<<20), f.Close()); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	mkfs := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", path)
	mkfs.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("format a disk: %w: %s", err, out)
	}
	return nil
}

// boot starts QEMU and returns once the first command has been answered, with the time that took.
func (s *bareSpec) boot(ctx context.Context) (*bareVM, time.Duration, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, 0, err
	}
	vm := &bareVM{cmd: exec.CommandContext(ctx, s.program, s.args...)}
	vm.cmd.ExtraFiles = []*os.File{theirs}
	var words strings.Builder
	vm.cmd.Stderr = &words
	began := time.Now()
	err = vm.cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, 0, fmt.Errorf("start QEMU: %w", err)
	}
	if err := vm.attach(ctx, ours); err != nil {
		vm.close()
		return nil, 0, fmt.Errorf("%w; QEMU said %q", err, words.String())
	}
	if _, err := vm.run(ctx, &proto.ExecRequest{ID: "bench", Argv: []string{"true"}}); err != nil {
		vm.close()
		return nil, 0, err
	}
	return vm, time.Since(began), nil
}

// attach brings the link up and hands the guest its configuration.
func (v *bareVM) attach(ctx context.Context, carrier net.Conn) error {
	log := slog.New(slog.DiscardHandler)
	session, err := link.Connect(ctx, carrier, log)
	if err != nil {
		return fmt.Errorf("connect the link: %w", err)
	}
	v.session = session
	entropy := make([]byte, 32)
	_, _ = rand.Read(entropy) // never fails
	v.agent, err = guestlink.Attach(ctx, session, guestlink.Config{
		Boot: proto.BootConfig{
			ID: "bench", Hostname: "bench", EpochNS: time.Now().UnixNano(), MachineID: strings.Repeat("0123456789abcdef", 2), Entropy: entropy,
		},
		Log: log,
	})
	if err != nil {
		return fmt.Errorf("attach to the agent: %w", err)
	}
	return nil
}

// run runs a command and counts its output.
func (v *bareVM) run(ctx context.Context, req *proto.ExecRequest) (int64, error) {
	if req.Dir == "" {
		req.Dir = "/" // nobody serves the workspace here
	}
	stream, err := v.agent.Exec(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	defer stream.Close()
	return countStdout(stream)
}

func (v *bareVM) close() {
	if v.agent != nil {
		v.agent.Close()
	}
	if v.session != nil {
		v.session.Close()
	}
	if err := v.cmd.Process.Kill(); err == nil {
		_ = v.cmd.Wait() // it was killed: the error only says so
	}
}

// socketPair returns one end as a connection and the other as a file for a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	defer mine.Close()
	conn, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn, theirs, nil
}
