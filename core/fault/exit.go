package fault

import (
	"context"
	"errors"
)

// Exit codes of every personality (design section 5).
const (
	// ExitFailure is any failure of capsem outside run and exec.
	ExitFailure = 1
	// ExitCapsem is capsem's own failure inside run and exec, so that it cannot be taken for the guest command's code.
	ExitCapsem = 125
	// ExitInterrupted is an interrupt by the user.
	ExitInterrupted = 130
)

// Exit is a result that is only an exit code: the guest command's own, or one already explained on stderr.
type Exit struct {
	// Status is the process exit code, 0-255.
	Status int
	// Err, when set, is printed before exiting.
	Err error
}

// Error describes the exit.
func (e *Exit) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return "exit"
}

// Unwrap returns the error to print, if any.
func (e *Exit) Unwrap() error { return e.Err }

// ExitCode maps the result of a personality to a process exit code.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if ex, ok := errors.AsType[*Exit](err); ok {
		return ex.Status
	}
	if errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	return ExitFailure
}
