//go:build linux

package proc

import (
	"bytes"
	"os"
	"slices"
	"strconv"
)

// groupsOfSession lists the process groups of a session: an interactive shell gives each job one of its own. The group of
// the session's leader is always among them.
func groupsOfSession(sid int) []int {
	groups := []int{sid}
	dir, err := os.Open("/proc")
	if err != nil {
		return groups
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read before an error is of use
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if pgrp, session, ok := parseStat(stat); ok && session == sid && !slices.Contains(groups, pgrp) {
			groups = append(groups, pgrp)
		}
	}
	return groups
}

// parseStat finds the process group and the session in a line of /proc/PID/stat. The name before them is in parentheses
// and may hold any character.
func parseStat(stat []byte) (pgrp, session int, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, false
	}
	fields := bytes.Fields(stat[i+1:]) // state, ppid, pgrp, session
	if len(fields) < 4 {
		return 0, 0, false
	}
	pgrp, err := strconv.Atoi(string(fields[2]))
	if err != nil || pgrp < 2 {
		return 0, 0, false
	}
	session, err = strconv.Atoi(string(fields[3]))
	return pgrp, session, err == nil
}

// Expendable makes the kernel prefer a command to the agent, which it inherits the agent's protection from, when memory
// runs out.
func Expendable(pid int) {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return // it has ended
	}
	defer f.Close()
	_, _ = f.WriteString("0") // without effect only where the agent is not protected either
}
