//go:build linux

// Package environ makes the environment of commands in the guest.
package environ

import (
	"maps"
	"slices"
)

// Path is the search path of commands that are given no other.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/ai-clis/bin"

// Base is what every process of the guest starts from.
func Base() map[string]string {
	return map[string]string{
		"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "PATH": Path, "LANG": "C.UTF-8",
		"TERM": "xterm-256color", "IS_SANDBOX": "1",
	}
}

// Merge lays environments over each other, later ones win, and returns KEY=VALUE lines in a fixed order.
func Merge(layers ...map[string]string) []string {
	all := map[string]string{}
	for _, layer := range layers {
		maps.Copy(all, layer)
	}
	lines := make([]string, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, k+"="+all[k])
	}
	return lines
}

// Lookup finds a variable in KEY=VALUE lines.
func Lookup(lines []string, key string) string {
	for _, l := range slices.Backward(lines) {
		if len(l) > len(key) && l[len(key)] == '=' && l[:len(key)] == key {
			return l[len(key)+1:]
		}
	}
	return ""
}
