package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"capsem/core/buildinfo"
)

// machineInfo says where the numbers come from.
type machineInfo struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	Kernel      string `json:"kernel"`
	Accelerator string `json:"accelerator,omitempty"`
	Carrier     string `json:"carrier,omitempty"`
	Assets      string `json:"assets,omitempty"`
	RootFS      string `json:"rootfs,omitempty"`
	Version     string `json:"version"`
}

func thisMachine() machineInfo {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty when it cannot be read: only for the record
	return machineInfo{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Kernel: strings.TrimSpace(string(kernel)),
		Version: buildinfo.Version,
	}
}

// field returns the value of the first "name: value" line of a file of /proc; empty without one.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// statusMB is a memory field of a process's status (VmRSS, RssAnon), in MB (10^6 bytes).
func statusMB(pid int, name string) (float64, error) {
	value, ok := strings.CutSuffix(field(fmt.Sprintf("/proc/%d/status", pid), name), " kB")
	if !ok {
		return 0, fmt.Errorf("process %d: no %s", pid, name)
	}
	kib, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	return kib * 1024 / 1e6, nil
}
