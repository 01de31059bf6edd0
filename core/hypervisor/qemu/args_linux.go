package qemu

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"capsem/core/hypervisor"
	"capsem/core/proto"
)

// sandbox denies what QEMU does not need once it runs (design D1).
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// tbMB bounds the memory QEMU takes for translated code under TCG, in MB; its default is 1 GiB.
const tbMB = 256

// firstFD is the number of the first of exec.Cmd.ExtraFiles in the child.
const firstFD = 3

// command is a command line under construction with the files it refers to.
type command struct {
	args  []string
	files []*os.File
}

func (c *command) add(args ...string) { c.args = append(c.args, args...) }

// fd passes a file on and returns its number in QEMU.
func (c *command) fd(f *os.File) int {
	c.files = append(c.files, f)
	return firstFD + len(c.files) - 1
}

// reopened is a path under which QEMU can open a passed file once more. The kernel checks the mode of the file itself,
// not the directories to it, so kernel and initrd must be readable by all.
func (c *command) reopened(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(c.fd(f)) }

// json adds an option whose value is a JSON object.
func (c *command) json(option string, value map[string]any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", option, err)
	}
	c.add(option, string(text))
	return nil
}

// ends are QEMU's ends of the sockets it talks to us through.
type ends struct{ qmp, console, link *os.File }

// carrier is what the link goes over. Not vhost-vsock, although it is there on many hosts: any user of the host may connect to a
// guest's AF_VSOCK port, and a guest to whatever listens on the host's. A serial port has two ends, and is as fast (design D2).
const carrier = "serial"

// commandLine builds QEMU's arguments for a machine.
func commandLine(s hypervisor.Spec, e ends) (*command, error) {
	c := &command{}
	c.add("-name", title(s.Name), "-no-user-config", "-nodefaults", "-display", "none", "-nic", "none", "-sandbox", sandbox, "-S",
		"-action", "reboot=shutdown,shutdown=poweroff,panic=shutdown",
		"-smp", processors(s), "-m", strconv.Itoa(s.MemoryMB)+"M")
	c.accelerator(s)
	console := board(c, s.Arch)
	c.memory(s)
	c.add("-kernel", c.reopened(s.Kernel), "-initrd", c.reopened(s.Initrd), "-append", words(s, console))
	c.add("-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", c.fd(e.qmp)), "-mon", "chardev=qmp,mode=control")
	c.add("-chardev", fmt.Sprintf("socket,id=console,fd=%d", c.fd(e.console)), "-serial", "chardev:console")
	c.add("-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng")
	c.add("-device", "virtio-serial-pci,max_ports=2", "-chardev", fmt.Sprintf("socket,id=link,fd=%d", c.fd(e.link)),
		"-device", "virtserialport,chardev=link,name="+proto.SerialPortName)
	for i, disk := range s.Disks {
		if err := c.disk(i, disk); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// words is the kernel's command line. To wake a thread on another processor is dear in an emulated guest, and the agent does little that
// takes long: one processor at a time is enough for it there. Guards against what real processors guess are of no use in one that does
// not guess, and cost a tenth of what the kernel does.
func words(s hypervisor.Spec, console string) string {
	text := fmt.Sprintf("console=%s %s capsem.carrier=%s", console, s.Cmdline, carrier)
	if s.Accelerator != hypervisor.KVM {
		text += " capsem.procs=1 mitigations=off"
	}
	return text
}

// processors are cores of one socket, or in an emulated guest sockets of their own: its scheduler then leaves who answers on the
// processor of who asks, instead of waking another one, which takes longer than most answers.
func processors(s hypervisor.Spec) string {
	if s.Accelerator != hypervisor.KVM {
		return fmt.Sprintf("cpus=%d,sockets=%d", s.CPUs, s.CPUs)
	}
	return strconv.Itoa(s.CPUs)
}

func (c *command) accelerator(s hypervisor.Spec) {
	if s.Accelerator == hypervisor.KVM {
		c.add("-accel", "kvm", "-cpu", "host")
		return
	}
	model := "max"
	if s.Arch == "amd64" {
		model += ",la57=off" // page tables of five levels take longer to walk
	}
	c.add("-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", tbMB), "-cpu", model)
}

// memory adds the RAM, by one name whatever it is made of, since saved states refer to it.
func (c *command) memory(s hypervisor.Spec) {
	ram := fmt.Sprintf("memory-backend-ram,id=%s,size=%dM", ramName, s.MemoryMB)
	if s.RAM != nil {
		share := "off"
		if s.RAMShared {
			share = "on"
		}
		ram = fmt.Sprintf("memory-backend-file,id=%s,size=%dM,mem-path=%s,share=%s", ramName, s.MemoryMB, c.reopened(s.RAM), share)
	}
	c.add("-object", ram, "-machine", "memory-backend="+ramName)
	if s.Arch == "amd64" { // the kernel takes a changed generation id for the order to reseed
		c.add("-device", "vmgenid,guid=auto")
	}
	if s.State != nil {
		c.add("-incoming", "defer")
	}
}

// ramName is what the RAM is called.
const ramName = "ram"

// board chooses the machine type, without what no guest of ours uses, and returns the name of its console.
func board(c *command, arch string) (console string) {
	if arch == "arm64" {
		c.add("-machine", "virt,gic-version=max,dump-guest-core=off")
		return "ttyAMA0"
	}
	c.add("-machine", "q35,usb=off,sata=off,smbus=off,i8042=off,vmport=off,hpet=off,graphics=off,dump-guest-core=off")
	return "ttyS0"
}

// disk attaches one disk through a file descriptor set, so that QEMU never opens a path.
// locking keeps any other QEMU from a disk that is written to; one that is only read may be everybody's.
func locking(d hypervisor.Disk) string {
	if d.ReadOnly {
		return "off"
	}
	return "on"
}

func (c *command) disk(i int, d hypervisor.Disk) error {
	number := c.fd(d.File)
	file, node := fmt.Sprintf("file%d", i), fmt.Sprintf("disk%d", i)
	c.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", number, i+1))
	err := c.json("-blockdev", map[string]any{
		"driver": "file", "filename": fmt.Sprintf("/dev/fdset/%d", i+1), "node-name": file, "read-only": d.ReadOnly, "locking": locking(d),
		"discard": "unmap",
	})
	if err != nil {
		return err
	}
	format := map[string]any{"driver": string(d.Format), "file": file, "node-name": node, "read-only": d.ReadOnly}
	if d.Format == hypervisor.QCOW2 {
		format["backing"] = nil // whatever its header says
	}
	if !d.ReadOnly {
		format["discard"], format["detect-zeroes"] = "unmap", "unmap"
	}
	if err := c.json("-blockdev", format); err != nil {
		return err
	}
	device := "virtio-blk-pci,drive=" + node
	if d.Serial != "" {
		device += ",serial=" + d.Serial
	}
	c.add("-device", device)
	return nil
}
