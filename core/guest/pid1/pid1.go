//go:build linux

// Package pid1 is the long life of the guest's first process once the system is up: it keeps the agent running, reaps
// orphans and ends the machine in order.
package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/layout"
)

// What PID 1 is told by.
const (
	// SignalPoweroff ends the machine; SIGTERM does too.
	SignalPoweroff = unix.SIGPWR
	// SignalReboot restarts it; the kernel sends it for Ctrl-Alt-Del as well.
	SignalReboot = unix.SIGINT
)

const (
	// defaultGrace is how long processes get to end when layout.GraceFile says nothing, maxGrace the most it may say.
	defaultGrace, maxGrace = 2 * time.Second, time.Minute
	// firstDelay and longestDelay are how long a dead agent stays dead: at first, and when it dies again and again.
	firstDelay, longestDelay = 20 * time.Millisecond, 2 * time.Second
	// goodRun is how long an agent must live to count as healthy.
	goodRun = 10 * time.Second
)

// Init is PID 1.
type Init struct {
	// Agent is the path of the agent, Env its environment. RestartedEnv is added when it is not the first.
	Agent        string
	Env          []string
	RestartedEnv string
	// Console gets one line for each thing gone wrong.
	Console io.Writer

	pid     int
	started time.Time
	delay   time.Duration
	runs    int
}

// Run keeps the machine going until it is told to end it, ends it and returns only when that fails.
func (i *Init) Run() error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, SignalPoweroff, SignalReboot, unix.SIGTERM)
	i.startAgent()
	var again <-chan time.Time
	for {
		select {
		case sig := <-signals:
			switch sig {
			case unix.SIGCHLD:
				if i.reap() {
					again = time.After(i.backOff())
				}
			case SignalReboot:
				return i.end(unix.LINUX_REBOOT_CMD_RESTART)
			default:
				return i.end(unix.LINUX_REBOOT_CMD_POWER_OFF)
			}
		case <-again:
			again = nil
			i.startAgent()
		}
		if i.pid == 0 && again == nil {
			again = time.After(i.backOff())
		}
	}
}

func (i *Init) say(format string, args ...any) {
	fmt.Fprintf(i.Console, "capsem-init: "+format+"\n", args...)
}

func (i *Init) startAgent() {
	env := i.Env
	if i.runs > 0 {
		env = append(slices.Clip(env), i.RestartedEnv)
	}
	i.runs++
	pid, err := syscall.ForkExec(i.Agent, []string{"agent"}, &syscall.ProcAttr{
		Dir: "/", Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		i.say("cannot start the agent: %v", err)
		return
	}
	i.pid, i.started = pid, time.Now()
	protect(pid)
}

// protect keeps the kernel from choosing the agent when memory runs out.
func protect(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("-900"), 0) // it may have ended
}

// reap collects every child that has ended and reports whether the agent was one of them.
func (i *Init) reap() (agentDied bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return agentDied
		}
		if pid == i.pid {
			i.say("the agent has ended (exit code %d, signal %d); starting it again", ws.ExitStatus(), ws.Signal())
			i.pid, agentDied = 0, true
		}
	}
}

// backOff says how long to wait before the agent is started again.
func (i *Init) backOff() time.Duration {
	if time.Since(i.started) > goodRun {
		i.delay = 0
	}
	i.delay = min(max(2*i.delay, firstDelay), longestDelay)
	return i.delay
}

// end stops every process, writes everything to disk and ends the machine.
func (i *Init) end(how int) error {
	StopAll(i.pid, grace(layout.GraceFile))
	settled := make(chan struct{})
	go func() {
		unix.Sync()
		for _, dir := range []string{"/", layout.SystemDir} {
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				i.say("cannot make %s read-only: %v", dir, err)
			}
		}
		close(settled)
	}()
	select {
	case <-settled:
	case <-time.After(20 * time.Second):
		i.say("the disk does not answer")
	}
	if err := unix.Reboot(how); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	select {} // the machine is gone any moment
}

// grace reads how long processes get to end.
func grace(path string) time.Duration {
	text, err := os.ReadFile(path)
	if err != nil {
		return defaultGrace
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || ms < 0 {
		return defaultGrace
	}
	return min(time.Duration(ms)*time.Millisecond, maxGrace)
}
