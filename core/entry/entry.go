// Package entry holds what main hands to a personality: its arguments, streams and exit contract.
// It exists so that personalities need not import each other or main.
package entry

import (
	"context"
	"io"
	"log/slog"
)

// Env is everything a personality may take from the process it runs in.
// No personality reads os.Args, os.Stdin, os.Stdout or os.Stderr itself, so each can be driven by a test.
type Env struct {
	// Args are the words after the program name (and after the hidden first word, if one chose the personality).
	Args []string
	// Stdin, Stdout and Stderr are the process streams. They are *os.File in production; code that needs a terminal asserts for an Fd method.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Getenv reads one environment variable; empty when unset.
	Getenv func(string) string
	// Log receives diagnostics. Never nil.
	Log *slog.Logger
}

// Run is one personality. It returns nil for exit code 0; fault.ExitCode maps any other result.
// It stops every goroutine and process it started before it returns.
type Run func(ctx context.Context, env Env) error
