package api

import (
	"regexp"

	"capsem/core/fault"
)

// Sizes of a VM (reference/capsem-host.md 3.2).
const (
	MinCPUs, MaxCPUs     = 1, 8
	MinRAMMB, MaxRAMMB   = 256, 16384
	MinDiskMB, MaxDiskMB = 1024, 128 << 10
)

var vmName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// CheckName refuses a VM name that is not 1-64 letters, digits, _ or -, beginning with a letter or digit.
func CheckName(name string) error {
	if !vmName.MatchString(name) {
		return fault.New(fault.Invalid, "%.80q is not a VM name", name).
			WithHint("use 1-64 letters, digits, - or _, beginning with a letter or digit")
	}
	return nil
}

// CheckSizes refuses sizes out of range; zero means the default and passes.
func CheckSizes(cpus, ramMB, diskMB int) error {
	if cpus != 0 && (cpus < MinCPUs || cpus > MaxCPUs) {
		return fault.New(fault.OutOfRange, "%d CPUs is outside %d-%d", cpus, MinCPUs, MaxCPUs)
	}
	if ramMB != 0 && (ramMB < MinRAMMB || ramMB > MaxRAMMB) {
		return fault.New(fault.OutOfRange, "%d MB of RAM is outside %d-%d", ramMB, MinRAMMB, MaxRAMMB)
	}
	if diskMB != 0 && (diskMB < MinDiskMB || diskMB > MaxDiskMB) {
		return fault.New(fault.OutOfRange, "a disk of %d MB is outside %d-%d", diskMB, MinDiskMB, MaxDiskMB)
	}
	return nil
}
