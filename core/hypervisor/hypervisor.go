// Package hypervisor is the seam to whatever runs a virtual machine: QEMU on Linux, Virtualization.framework on macOS,
// an in-process fake for tests. Drivers are values, machines are values; nothing here is a singleton, and nothing above
// asserts a concrete driver. Every driver passes the contract in hypervisortest.
package hypervisor

import (
	"context"
	"errors"
	"net"
	"os"
)

// Accelerator is how guest instructions are executed.
type Accelerator string

// The accelerators.
const (
	// Auto tries KVM with a real boot once and remembers the verdict (design D4), else TCG.
	Auto Accelerator = "auto"
	// KVM is the Linux kernel's.
	KVM Accelerator = "kvm"
	// TCG is QEMU's software emulation.
	TCG Accelerator = "tcg"
	// HVF stands for Apple's hypervisor, in reports.
	HVF Accelerator = "hvf"
)

// DiskFormat is the format of a disk image.
type DiskFormat string

// The formats.
const (
	Raw   DiskFormat = "raw"
	QCOW2 DiskFormat = "qcow2"
)

// Disk is one virtio block device; the order in Spec.Disks is the order in the guest (vda, vdb, ...).
type Disk struct {
	// File is open for reading, and for writing unless ReadOnly. The driver duplicates it and never uses its path.
	File *os.File
	// Format is raw or qcow2; a qcow2 here has no backing file.
	Format DiskFormat
	// ReadOnly attaches it so that the guest cannot write.
	ReadOnly bool
	// Serial is the id the guest sees, at most 20 characters.
	Serial string
}

// Spec is one machine. Files are borrowed until Create returns.
type Spec struct {
	// Name is for logs and process titles.
	Name string
	// Arch is amd64 or arm64 (GOARCH words).
	Arch string
	// CPUs and MemoryMB size it.
	CPUs     int
	MemoryMB int
	// Kernel and Initrd are open for reading and already verified.
	Kernel *os.File
	Initrd *os.File
	// Cmdline is the kernel command line; the driver adds its console.
	Cmdline string
	// Disks are attached in order.
	Disks []Disk
	// Console receives what the guest writes to its console. The driver bounds it to ConsoleLimit bytes.
	Console *os.File
	// Accelerator must be resolved: not Auto.
	Accelerator Accelerator
	// UID and GID are who the hypervisor process runs as when we are root; 0 leaves them.
	UID, GID uint32
	// RAM, when set, is a file of MemoryMB that is the machine's memory. Shared memory is written to it; of private memory it is where
	// the machine begins, and what is written stays the machine's own. Where there is none the memory has no file.
	RAM       *os.File
	RAMShared bool
	// State, when set, is what Saver.Save has written of a machine with the same spec: Create goes on from there instead of booting.
	State *os.File
	// OnStall, when set, is told why the machine stands still by itself, as when the host's disk is full, and "" when it goes on. It
	// must not block.
	OnStall func(why string)
	// ShareDir, when set, is shared by VirtioFS under the tag "workspace" (vz only; elsewhere the link carries files).
	ShareDir string
}

// ConsoleLimit bounds the console log of one machine, in bytes.
const ConsoleLimit = 4 << 20

// Capabilities is what a driver can do, as data.
type Capabilities struct {
	// Pause and SaveRestore say what works.
	Pause       bool
	SaveRestore bool
	// LiveFork says that a running machine can be saved without being stopped for good.
	LiveFork bool
	// Accelerators lists what Spec.Accelerator may be.
	Accelerators []Accelerator
	// Version is the hypervisor's own, for reports and template keys.
	Version string
}

// Driver makes machines.
type Driver interface {
	// Name is qemu, vz or fake.
	Name() string
	// Capabilities probes the host; the result is for this driver value.
	Capabilities(ctx context.Context) (Capabilities, error)
	// Create prepares a machine without running it. On error nothing is left behind.
	Create(ctx context.Context, spec Spec) (Machine, error)
}

// Machine is one virtual machine. All methods are safe for concurrent use. After Kill, or once Wait has returned, every
// other method answers ErrGone.
type Machine interface {
	Lifecycle
	// Wait blocks until the machine is down and everything of it is released, and says how it ended.
	Wait(ctx context.Context) (Exit, error)
	// Carrier connects to the guest's end of the link; it may be called again after the connection ends.
	Carrier(ctx context.Context) (net.Conn, error)
	// Info describes the running machine.
	Info() Info
}

// Lifecycle moves a machine between its states.
type Lifecycle interface {
	// Start runs it; allowed once.
	Start(ctx context.Context) error
	// Pause stops the virtual CPUs; Resume lets them go on. Pausing a paused machine is no error.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Stop presses the power button; the guest decides.
	Stop(ctx context.Context) error
	// Kill ends it at once and waits until its process is gone. Killing a dead machine is no error.
	Kill(ctx context.Context) error
}

// Saver is implemented by machines that can be saved (Capabilities.SaveRestore).
type Saver interface {
	// Save writes the state of a paused machine to an open file: devices and CPUs, and the memory unless that is shared with
	// Spec.RAM, which then holds it. The machine stays paused; its disks are to be copied before it goes on.
	Save(ctx context.Context, to *os.File) error
}

// Info describes a running machine.
type Info struct {
	// PID is the hypervisor process; 0 when there is none of its own.
	PID int
	// Accelerator in use, and "vsock" or "serial" for the link.
	Accelerator Accelerator
	Carrier     string
}

// ExitReason is how a machine ended.
type ExitReason string

// The reasons.
const (
	// GuestPoweroff is an orderly power-off by the guest.
	GuestPoweroff ExitReason = "poweroff"
	// GuestReboot is a reset asked for by the guest; the caller starts a new machine.
	GuestReboot ExitReason = "reboot"
	// GuestPanic is a kernel panic.
	GuestPanic ExitReason = "panic"
	// Killed is our own Kill.
	Killed ExitReason = "killed"
	// Crashed is the end of the hypervisor process without any of the above.
	Crashed ExitReason = "crashed"
)

// Exit is how a machine ended.
type Exit struct {
	// Reason classifies it; Detail has the hypervisor's last words.
	Reason ExitReason
	Detail string
}

// ErrRan is a Start that failed although the virtual CPUs may have run: the disks may be ahead of a state that the machine went on from.
var ErrRan = errors.New("the virtual machine may have run")

// ErrGone is returned by every method of a machine that is down.
var ErrGone = errors.New("the virtual machine is gone")
