//go:build linux

package boot

import (
	"fmt"
	"strconv"
	"strings"
)

// Carrier is what carries the link.
type Carrier string

// The carriers.
const (
	Serial Carrier = "serial"
	Vsock  Carrier = "vsock"
)

// Cmdline is what the host says on the kernel's command line.
type Cmdline struct {
	// RootFS is the type of the root file system on the first disk, squashfs or erofs; empty means to try both.
	RootFS string
	// Carrier is what carries the link.
	Carrier Carrier
	// Vsock says that AF_VSOCK is wanted although the link runs over something else.
	Vsock bool
	// Procs is how many processors the agent uses at once; 0 is all.
	Procs int
}

// unwanted reports whether a module of the initrd is left out: those of AF_VSOCK take a tenth of a second to load under TCG.
func (c Cmdline) unwanted(module string) bool {
	return strings.Contains(module, "vsock") && c.Carrier != Vsock && !c.Vsock
}

// ParseCmdline reads the words that are ours. Words of the kernel and of others are left alone.
func ParseCmdline(text string) (Cmdline, error) {
	c := Cmdline{Carrier: Serial}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "capsem.rootfs":
			if value != "squashfs" && value != "erofs" {
				return c, fmt.Errorf("kernel command line: unknown root file system %.40q", value)
			}
			c.RootFS = value
		case "capsem.carrier":
			if c.Carrier = Carrier(value); c.Carrier != Serial && c.Carrier != Vsock {
				return c, fmt.Errorf("kernel command line: unknown carrier %.40q", value)
			}
		case "capsem.vsock":
			c.Vsock = true
		case "capsem.procs":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return c, fmt.Errorf("kernel command line: %.40q processors", value)
			}
			c.Procs = int(n)
		}
	}
	return c, nil
}
