package proto

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on what one command may carry.
const (
	// MaxEnv is the number of environment variables (reference/capsem-guest.md 1.3).
	MaxEnv = 128
	// MaxEnvKey and MaxEnvValue bound one variable, in bytes.
	MaxEnvKey   = 256
	MaxEnvValue = 128 << 10
	// MaxArgs and MaxArgBytes bound the argument list; the whole request must also fit in MaxFrame.
	MaxArgs     = 4096
	MaxArgBytes = 200 << 10
	// MaxPath bounds a path, as PATH_MAX does.
	MaxPath = 4096
	// MaxTimeout bounds a time limit; who wants more can do without one.
	MaxTimeout = 30 * 24 * time.Hour
)

// ExecRequest opens a stream on PortExec: one CBOR frame after the stream header, then stream frames.
// Towards the guest: Stdin, Resize, Signal. From the guest: Started, Stdout, Stderr, then Exit.
// Closing the stream before Exit kills the process group.
type ExecRequest struct {
	// ID names the job in logs; chosen by the worker.
	ID string `cbor:"id" json:"id,omitempty"`
	// Command is run by bash -c; exclusive with Argv.
	Command string `cbor:"command,omitempty" json:"command,omitempty"`
	// Argv is run as it is.
	Argv []string `cbor:"argv,omitempty" json:"argv,omitempty"`
	// Dir is the working directory; empty means /root.
	Dir string `cbor:"dir,omitempty" json:"dir,omitempty"`
	// Env adds to the VM's environment.
	Env map[string]string `cbor:"env,omitempty" json:"env,omitempty"`
	// Stdin says whether Stdin frames will come; without it the command reads from /dev/null.
	Stdin bool `cbor:"stdin,omitempty" json:"stdin,omitempty"`
	// PTY, when set, runs the command on a terminal of that size; output is then all Stdout.
	PTY *WindowSize `cbor:"pty,omitempty" json:"pty,omitempty"`
	// TimeoutMS kills the command after that many milliseconds, at most MaxTimeout; 0 means no limit.
	TimeoutMS int64 `cbor:"timeout_ms,omitempty" json:"timeout_ms,omitempty"`
}

// WindowSize is a terminal's size in cells.
type WindowSize struct {
	// Cols and Rows are 1-4096.
	Cols uint16 `cbor:"cols" json:"cols"`
	Rows uint16 `cbor:"rows" json:"rows"`
}

// Validate bounds the size.
func (w WindowSize) Validate() error {
	if w.Cols < 1 || w.Cols > 4096 || w.Rows < 1 || w.Rows > 4096 {
		return fmt.Errorf("window size %dx%d is outside 1-4096", w.Cols, w.Rows)
	}
	return nil
}

// Started reports that the command runs.
type Started struct {
	// Job is the id of the job in the worker.
	Job string `json:"job"`
	// PID is the process id in the guest.
	PID int `json:"pid"`
}

// ExitStatus is how a command ended.
type ExitStatus struct {
	// Code is the exit code; 128 plus the signal when one ended it; 126 or 127 when it could not be run.
	Code int `json:"code"`
	// Signal is the name of the signal that ended it, such as SIGKILL; empty otherwise.
	Signal string `json:"signal,omitempty"`
	// Error says why the command could not be run, or that its time ran out.
	Error string `json:"error,omitempty"`
	// TimedOut says that TimeoutMS ran out.
	TimedOut bool `json:"timed_out,omitempty"`
	// DurationUS is the time from fork to reaping, measured in the guest, in microseconds.
	DurationUS int64 `json:"duration_us"`
}

// StreamError ends a stream that capsem gave up.
type StreamError struct {
	// Code is a fault.Code.
	Code string `json:"code"`
	// Message and Hint are shown to the user.
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Validate checks an ExecRequest; both sides call it.
func (e *ExecRequest) Validate() error {
	switch {
	case (e.Command == "") == (len(e.Argv) == 0):
		return errors.New("give either a command or an argument list")
	case len(e.ID) > 64:
		return errors.New("job id is longer than 64 bytes")
	case len(e.Argv) > MaxArgs:
		return fmt.Errorf("more than %d arguments", MaxArgs)
	case strings.ContainsRune(e.Command, 0) || strings.ContainsRune(e.Dir, 0):
		return errors.New("command or directory contains a NUL byte")
	case len(e.Dir) > MaxPath:
		return fmt.Errorf("working directory is longer than %d bytes", MaxPath)
	case e.TimeoutMS < 0:
		return errors.New("timeout is negative")
	case e.TimeoutMS > MaxTimeout.Milliseconds():
		return fmt.Errorf("timeout is over %d days; leave it out for none", int(MaxTimeout.Hours())/24)
	case !utf8.ValidString(e.ID) || !utf8.ValidString(e.Command) || !utf8.ValidString(e.Dir):
		return errors.New("job id, command or directory is not UTF-8 text; other bytes can be sent through stdin or a file")
	}
	total := len(e.Command)
	for _, a := range e.Argv {
		total += len(a)
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument contains a NUL byte")
		}
		if !utf8.ValidString(a) {
			return errors.New("an argument is not UTF-8 text; other bytes can be sent through stdin or a file")
		}
	}
	if total > MaxArgBytes {
		return fmt.Errorf("command of %d bytes is over the limit of %d; send it through stdin or a file", total, MaxArgBytes)
	}
	if len(e.Argv) > 0 && e.Argv[0] == "" {
		return errors.New("the program name is empty")
	}
	if e.PTY != nil {
		if err := e.PTY.Validate(); err != nil {
			return err
		}
	}
	return ValidateEnv(e.Env)
}

var blockedEnv = map[string]bool{
	"IFS": true, "BASH_ENV": true, "ENV": true, "CDPATH": true, "GLOBIGNORE": true, "SHELLOPTS": true,
	"BASHOPTS": true, "PROMPT_COMMAND": true, "PS4": true,
}

// ValidateEnv checks names and sizes (reference/capsem-guest.md 2.5). Linux would take any bytes but NUL; here they are sent
// as CBOR and JSON texts, so they must be UTF-8.
func ValidateEnv(env map[string]string) error {
	if len(env) > MaxEnv {
		return fmt.Errorf("%d environment variables are more than the limit of %d", len(env), MaxEnv)
	}
	for k, v := range env {
		switch {
		case k == "" || len(k) > MaxEnvKey || strings.ContainsAny(k, "=\x00"):
			return fmt.Errorf("environment variable name %.40q is empty, too long, or contains = or NUL", k)
		case !utf8.ValidString(k):
			return fmt.Errorf("environment variable name %.40q is not UTF-8 text", k)
		case blockedEnv[k] || strings.HasPrefix(k, "LD_") || strings.HasPrefix(k, "BASH_FUNC_"):
			return fmt.Errorf("environment variable %s may not be set: it changes how every command runs", k)
		case len(v) > MaxEnvValue || strings.ContainsRune(v, 0):
			return fmt.Errorf("value of environment variable %s is over %d bytes or contains NUL", k, MaxEnvValue)
		case !utf8.ValidString(v):
			return fmt.Errorf("value of environment variable %s is not UTF-8 text; other bytes can be sent in a file", k)
		}
	}
	return nil
}
