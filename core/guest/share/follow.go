//go:build linux

package share

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// followEvery is how many requests of one program in a row there are between two looks at where it runs.
const followEvery = 16

// follower keeps the thread that relays on the processor of the program that asks. In an emulated guest to wake a thread on another,
// idle processor takes several times as long as everything else about a request; the scheduler leaves a thread where it ran last.
type follower struct {
	on  bool
	pid uint32
	in  int
	// irqs are those of the link, steered is where they go.
	irqs    []string
	steered int
}

func newFollower() *follower {
	f := &follower{on: runtime.GOMAXPROCS(0) == 1 && runtime.NumCPU() > 1, steered: -1}
	if f.on {
		f.irqs = linkInterrupts("/")
	}
	return f
}

// linkInterrupts are the numbers of the interrupts by which the host's messages come.
func linkInterrupts(root string) (irqs []string) {
	ports, _ := filepath.Glob(filepath.Join(root, "sys/class/virtio-ports/*"))
	text, err := os.ReadFile(filepath.Join(root, "proc/interrupts"))
	if err != nil {
		return nil
	}
	for _, port := range ports {
		at, err := os.Readlink(port) // .../virtio1/virtio-ports/vport1p1
		device := filepath.Base(filepath.Dir(filepath.Dir(at)))
		if err != nil || !strings.HasPrefix(device, "virtio") {
			continue
		}
		for line := range strings.Lines(string(text)) {
			number, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			fields := strings.Fields(rest)
			if len(fields) > 0 && strings.HasPrefix(fields[len(fields)-1], device+"-") {
				irqs = append(irqs, number)
			}
		}
	}
	return irqs
}

// steer has the host's messages come to a processor: who is woken from another one may be moved there.
func (f *follower) steer(to int) {
	if to == f.steered {
		return
	}
	f.steered = to
	for _, irq := range f.irqs {
		_ = os.WriteFile("/proc/irq/"+irq+"/smp_affinity_list", []byte(strconv.Itoa(to)), 0) // one that cannot be steered stays
	}
}

// saw is told who makes a request.
func (f *follower) saw(pid uint32) {
	if !f.on || pid == 0 {
		return
	}
	if pid != f.pid {
		f.pid, f.in = pid, 0
	}
	if f.in++; f.in%followEvery == followEvery/2 {
		f.follow()
	}
}

// follow moves this thread there. It may run anywhere afterwards, too: what it starts must not be held to one processor.
func (f *follower) follow() {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.pid))
	if err != nil {
		return
	}
	there := processorOf(text)
	var all, one unix.CPUSet
	if there < 0 || unix.SchedGetaffinity(0, &all) != nil || !all.IsSet(there) {
		return
	}
	f.steer(there)
	one.Set(there)
	runtime.LockOSThread() // both calls are to be about the same one
	defer runtime.UnlockOSThread()
	if unix.SchedSetaffinity(0, &one) == nil {
		_ = unix.SchedSetaffinity(0, &all)
	}
}

// processorOf is the processor in a text of /proc/PID/stat, -1 if there is none.
func processorOf(stat []byte) int {
	const field = 36 // the 39th, counted from behind the name, which may hold anything
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= field {
		return -1
	}
	n, err := strconv.Atoi(string(fields[field]))
	if err != nil || n < 0 {
		return -1
	}
	return n
}
