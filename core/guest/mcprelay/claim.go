//go:build linux

package mcprelay

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"capsem/core/proto"
)

const maxClaim, maxParents = 4 << 10, 16

// Claim is what can be said of a process: the agent that started the relay.
func Claim(proc string, pid int) proto.ProcessClaim {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	c := proto.ProcessClaim{PID: int32(pid), Name: text(read(filepath.Join(dir, "comm")), 64)} //nolint:gosec // a process id
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		c.Exe = text(exe, maxClaim)
	}
	c.CommandLine = text(strings.ReplaceAll(strings.TrimRight(read(filepath.Join(dir, "cmdline")), "\x00"), "\x00", " "), maxClaim)
	for range maxParents {
		if pid = parent(read(filepath.Join(proc, strconv.Itoa(pid), "stat"))); pid <= 1 {
			break
		}
		c.Parents = append(c.Parents, text(read(filepath.Join(proc, strconv.Itoa(pid), "comm")), 64))
	}
	return c
}

// parent is the parent's number, which stands after the name in parentheses and the state.
func parent(stat string) int {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return n
}

func read(name string) string {
	body, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(body)
}

func text(s string, most int) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "_")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
