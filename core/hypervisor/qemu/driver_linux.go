package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"capsem/core/fault"
	"capsem/core/hypervisor"
)

// Options are what all machines of a driver share.
type Options struct {
	// Log takes what QEMU does; nil logs nothing.
	Log *slog.Logger
	// Program is the QEMU binary; empty finds qemu-system-ARCH on PATH and in the usual places.
	Program string
}

// driver is the hypervisor.Driver.
type driver struct {
	log     *slog.Logger
	program string

	mu    sync.Mutex
	known hypervisor.Capabilities
}

// New returns the driver.
func New(opts Options) hypervisor.Driver {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &driver{log: log, program: opts.Program}
}

// Name is "qemu".
func (d *driver) Name() string { return "qemu" }

// Capabilities asks QEMU for its version, once.
func (d *driver) Capabilities(ctx context.Context) (hypervisor.Capabilities, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known.Version != "" {
		return d.known, nil
	}
	program, err := d.find(runtime.GOARCH)
	if err != nil {
		return hypervisor.Capabilities{}, err
	}
	v, err := version(ctx, program)
	if err != nil {
		return hypervisor.Capabilities{}, err
	}
	d.known = hypervisor.Capabilities{
		Pause: true, SaveRestore: true, Accelerators: []hypervisor.Accelerator{hypervisor.KVM, hypervisor.TCG}, Version: v,
	}
	return d.known, nil
}

// names are QEMU's words for GOARCH's.
var names = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// places are searched besides PATH: the worker has no environment.
var places = []string{"/usr/bin", "/usr/local/bin", "/usr/libexec"}

func (d *driver) find(arch string) (string, error) {
	if d.program != "" {
		return d.program, nil
	}
	return Program(arch)
}

// Program finds QEMU for an architecture (a GOARCH word).
func Program(arch string) (string, error) {
	word, ok := names[arch]
	if !ok {
		return "", fault.New(fault.Invalid, "QEMU is not used here for architecture %q", arch)
	}
	name := "qemu-system-" + word
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range places {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	pkg := map[string]string{"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}[arch]
	return "", fault.New(fault.Unavailable, "QEMU (%s) is not installed", name).WithHint("install it, for example: apt install %s", pkg)
}

var versionText = regexp.MustCompile(`version ([0-9][^\s()]{0,40})`)

func version(ctx context.Context, program string) (string, error) {
	cmd := exec.CommandContext(ctx, program, "-version")
	cmd.Env = []string{}
	out, err := cmd.Output()
	m := versionText.FindSubmatch(out[:min(len(out), 4096)])
	if err == nil && m == nil {
		err = errors.New("no version in its answer")
	}
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "QEMU (%s) does not run: %s", program, err).WithHint("install it anew")
	}
	return string(m[1]), nil
}

// Create starts QEMU with its virtual CPUs stopped.
func (d *driver) Create(ctx context.Context, spec hypervisor.Spec) (hypervisor.Machine, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	program, err := d.find(spec.Arch)
	if err != nil {
		return nil, err
	}
	m := &machine{log: d.log.With("vm", spec.Name), spec: spec, dying: make(chan struct{}), down: make(chan struct{})}
	if err := m.launch(ctx, program); err != nil {
		return nil, fmt.Errorf("create machine: %w", err)
	}
	return m, nil
}

func check(s hypervisor.Spec) error {
	switch {
	case s.Kernel == nil || s.Initrd == nil:
		return errors.New("create machine: no kernel or initrd")
	case s.CPUs < 1 || s.MemoryMB < 1:
		return errors.New("create machine: no CPUs or memory")
	case s.Accelerator != hypervisor.KVM && s.Accelerator != hypervisor.TCG:
		return fmt.Errorf("create machine: accelerator %q is none of QEMU's", s.Accelerator)
	case s.RAMShared && s.RAM == nil:
		return errors.New("create machine: memory without a file cannot be shared")
	case s.ShareDir != "":
		return errors.New("create machine: QEMU shares no directories, the link carries files")
	}
	for i, disk := range s.Disks {
		if disk.File == nil || !slices.Contains([]hypervisor.DiskFormat{hypervisor.Raw, hypervisor.QCOW2}, disk.Format) || len(disk.Serial) > 20 {
			return fmt.Errorf("create machine: disk %d is malformed", i)
		}
	}
	return nil
}

// closeAll closes files that were only needed until QEMU had them.
func closeAll[C io.Closer](files []C) {
	for _, f := range files {
		_ = f.Close()
	}
}

// title is a name that is safe in QEMU's option syntax and in process lists.
func title(name string) string {
	clean := []rune{}
	for _, r := range name {
		if r == '-' || r == '_' || (r >= '0' && r <= '9') || (r >= 'A' && r <= 'Z') || (r >= 'a' && r <= 'z') {
			clean = append(clean, r)
		}
	}
	return "capsem-" + string(clean[:min(len(clean), 40)])
}

// credential is who QEMU runs as: nobody else than us unless we are root and a user is given.
func credential(uid, gid uint32, accelerator hypervisor.Accelerator) *syscall.Credential {
	if uid == 0 || os.Geteuid() != 0 {
		return nil
	}
	cred := &syscall.Credential{Uid: uid, Gid: gid}
	if group, needed := kvmGroup(); needed && accelerator == hypervisor.KVM {
		cred.Groups = []uint32{group}
	}
	return cred
}

// kvmGroup returns the group that may open /dev/kvm, when everybody may not.
func kvmGroup() (gid uint32, needed bool) {
	info, err := os.Stat("/dev/kvm")
	if err != nil || info.Mode().Perm()&0o006 == 0o006 {
		return 0, false
	}
	return groupOf(info)
}
