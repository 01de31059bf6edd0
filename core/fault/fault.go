// Package fault carries errors with a public text apart from their cause, and maps them, in this one place,
// to a process exit code or an HTTP status.
package fault

import (
	"errors"
	"fmt"
)

// Code is the stable, machine-readable name of a kind of failure, as it appears in {"error":{"code":...}}.
type Code string

// The codes of the local API. Each maps to one HTTP status.
const (
	// Invalid is malformed input: a bad name, an unknown field, bad JSON (400).
	Invalid Code = "invalid"
	// Forbidden is a request that is refused whatever its arguments (403).
	Forbidden Code = "forbidden"
	// NotFound is an unknown VM, job, file or route (404).
	NotFound Code = "not_found"
	// Conflict is a name already taken or a state that does not allow the request (409).
	Conflict Code = "conflict"
	// TooLarge is a request body over its limit (413).
	TooLarge Code = "too_large"
	// OutOfRange is a number outside its allowed range, such as CPUs or RAM (422).
	OutOfRange Code = "out_of_range"
	// LimitReached is a quota that is used up, such as the number of VMs (429).
	LimitReached Code = "limit_reached"
	// Unavailable is something that should be there and is not (yet): missing assets, a VM that is not ready (503).
	Unavailable Code = "unavailable"
	// Timeout is a time limit that ran out (504).
	Timeout Code = "timeout"
	// NoSpace is a full host disk (507).
	NoSpace Code = "no_space"
	// Internal is our own failure (500).
	Internal Code = "internal"
)

// Error is a failure with a text fit for a user. Cause is for logs and is never shown by the API.
type Error struct {
	// Code is the machine-readable kind.
	Code Code
	// Message is one plain line saying what is wrong.
	Message string
	// Hint is one plain line saying what to do next; may be empty.
	Hint string
	// Cause is the underlying error; may be nil.
	Cause error
}

// Error returns the message and, where there is one, the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New makes an Error with a formatted message.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error with a cause and a formatted message.
func Wrap(cause error, code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// WithHint returns e with a hint set, for chaining.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Public returns the code, message and hint that may be shown to a caller. An error that carries no Error is Internal
// and shows its own text, since everything on the local API is the same user's machine.
func Public(err error) (code Code, message, hint string) {
	if fe, ok := errors.AsType[*Error](err); ok {
		return fe.Code, fe.Message, fe.Hint
	}
	return Internal, err.Error(), ""
}

// Is reports whether err carries the given code.
func Is(err error, code Code) bool {
	fe, ok := errors.AsType[*Error](err)
	return ok && fe.Code == code
}

// HTTPStatus maps an error to the status of the local API.
func HTTPStatus(err error) int {
	code, _, _ := Public(err)
	if status, ok := statusOf[code]; ok {
		return status
	}
	return 500
}

var statusOf = map[Code]int{
	Invalid: 400, Forbidden: 403, NotFound: 404, Conflict: 409, TooLarge: 413, OutOfRange: 422,
	LimitReached: 429, Unavailable: 503, Timeout: 504, NoSpace: 507, Internal: 500,
}
