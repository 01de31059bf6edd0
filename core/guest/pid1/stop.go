//go:build linux

package pid1

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checkEvery is how often StopAll looks whether everything has ended.
const checkEvery = 10 * time.Millisecond

// StopAll asks every process but PID 1 and the agent to end, and kills what has not ended when grace is over, the agent
// included. The agent lives on until then so that last words reach the host.
func StopAll(agent int, grace time.Duration) {
	for _, pid := range processes(agent) {
		_ = unix.Kill(pid, unix.SIGTERM) // it may have ended
		_ = unix.Kill(pid, unix.SIGCONT)
	}
	// Interactive shells heed only HUP. Others would die of it while they are still about what they do on TERM.
	for _, pid := range processes(agent) {
		if leadsTerminal(pid) {
			_ = unix.Kill(pid, unix.SIGHUP)
		}
	}
	over := time.NewTimer(grace)
	defer over.Stop()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
wait:
	for len(processes(agent)) > 0 {
		reapAll()
		select {
		case <-tick.C:
		case <-over.C:
			break wait
		}
	}
	// The agent is the last: what the others leave unwritten in shared directories goes through it.
	for _, pid := range processes(agent) {
		_ = unix.Kill(pid, unix.SIGKILL) // as above
	}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline) && len(processes(agent)) > 0; {
		reapAll()
		<-tick.C
	}
	syncShares()
	_ = unix.Kill(-1, unix.SIGKILL) // no process is left then
	// Killed processes still hold files; the disk can be made read-only only after them.
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && len(processes(0)) > 0; {
		reapAll()
		<-tick.C
	}
}

// shareTime bounds how long the host may take to have what was written to shared directories.
const shareTime = 3 * time.Second

// unescape undoes what the kernel does to names in /proc/self/mounts.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// syncShares waits until the host has it: it answers in order, so whatever is asked now is answered after it.
func syncShares() {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() { // a host that does not answer must not keep the machine from ending
		defer close(done)
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "fuse.capsem" {
				syncDir(unescape.Replace(fields[1]))
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(shareTime):
	}
}

func syncDir(dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = unix.Fsync(fd) // the machine ends in any case
	_ = unix.Close(fd)
}

func reapAll() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// processes lists the living processes of user space but PID 1 and one other.
func processes(but int) []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read before an error is of use
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid <= 2 || pid == but {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err == nil && alive(stat) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// leadsTerminal reports whether a process is the first of a session on a terminal, as an interactive shell is.
func leadsTerminal(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // as below
	return len(fields) > 4 && string(fields[3]) == strconv.Itoa(pid) && string(fields[4]) != "0"
}

// alive reports whether a line of /proc/PID/stat is of a process that is neither a zombie nor a kernel thread.
func alive(stat []byte) bool {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return false
	}
	fields := bytes.Fields(stat[i+1:]) // state, ppid, pgrp, session, tty, tpgid, flags
	if len(fields) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	const kernelThread = 0x00200000 // PF_KTHREAD
	return err == nil && flags&kernelThread == 0 && fields[0][0] != 'Z' && fields[0][0] != 'X'
}
