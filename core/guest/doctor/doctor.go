//go:build linux

// Package doctor checks, inside the guest, that the VM is what capsem promises: cut off from any network, its base and its
// tools read-only, hardened, and in order.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// Result is one check. As JSON, one object a line, it is what the host's doctor reads.
type Result struct {
	// Name is the check, a stable word.
	Name string `json:"name"`
	// OK says that it passed.
	OK bool `json:"ok"`
	// Detail says what was found.
	Detail string `json:"detail"`
	// Hint says what to do about a failure; empty otherwise.
	Hint string `json:"hint,omitempty"`
}

// Check is one thing to look at. Run returns what was found, or an error that says what is wrong.
type Check struct {
	Name string
	Hint string
	Run  func(ctx context.Context, s *System) (detail string, err error)
}

// System is where the checks look; the zero value is the running guest, tests give other directories.
type System struct {
	// Proc and Sys stand for /proc and /sys when they are set.
	Proc, Sys string
	// Getenv reads the environment the doctor was started with.
	Getenv func(string) string
}

func (s *System) proc(name string) string { return or(s.Proc, "/proc") + "/" + name }

func (s *System) sys(name string) string { return or(s.Sys, "/sys") + "/" + name }

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Checks are all checks, in the order they are shown.
func Checks() []Check {
	const broken = "the guest image or agent is broken: run capsem assets verify, then build it again"
	const tampered = "something in this VM has changed it: delete the VM and make a new one"
	return []Check{
		{"no_network_card", "the VM must have no network device: " + tampered, networkCards},
		{"routes", tampered, routes},
		{"redirection", tampered, redirection},
		{"names", "does the host's worker answer? see capsem logs on the host", names},
		{"proxy", "does the host's worker answer? see capsem logs on the host", proxyAnswers},
		{"proxy_trusted", "restart the VM: the host sends the certificate of its CA at each start", proxyTrusted},
		{"refusals", tampered, refusals},
		{"air_gap", "a connection left the VM: stop it and report this", airGap},
		{"root_overlay", broken, rootOverlay},
		{"base_read_only", broken, baseReadOnly},
		{"overlay_writes", "is the VM's disk full? look at df -h /", overlayWrites},
		{"guest_binaries", tampered, guestBinaries},
		{"power_commands", "something replaced them; restart the VM", powerCommands},
		{"no_setuid", "the guest image has programs that change user: build it again", noSetuid},
		{"modules_locked", broken, modulesLocked},
		{"kernel_settings", "set them back, or restart the VM", kernelSettings},
		{"no_kernel_memory", broken, noKernelMemory},
		{"lockdown", broken, lockdown},
		{"clock", "is the host's clock right?", clock},
		{"environment", broken, environment},
		{"temporary_files", broken, temporaryFiles},
		{"agent", broken, agentRuns},
	}
}

// Run does the checks and hands out each result as it comes. It reports whether all passed.
func Run(ctx context.Context, s *System, checks []Check, each func(Result) error) (bool, error) {
	all := true
	for _, c := range checks {
		detail, err := c.Run(ctx, s)
		r := Result{Name: c.Name, OK: err == nil, Detail: detail}
		if err != nil {
			all = false
			r.Detail, r.Hint = err.Error(), c.Hint
		}
		if err := each(r); err != nil {
			return false, err
		}
	}
	return all, nil
}

// JSON writes a result as one line.
func JSON(w io.Writer) func(Result) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(r Result) error {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
		return nil
	}
}

// Text writes a result as a line for people.
func Text(w io.Writer) func(Result) error {
	return func(r Result) error {
		verdict := "PASS"
		if !r.OK {
			verdict = "FAIL"
		}
		line := fmt.Sprintf("%s  %-16s  %s", verdict, r.Name, r.Detail)
		if r.Hint != "" {
			line += " (" + r.Hint + ")"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
		return nil
	}
}
