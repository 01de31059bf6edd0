// Command capsem runs commands in virtual machines that have no network. One binary is all its programs: see personalities.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/personalities"
)

func main() {
	run, args := personalities.Choose(os.Args)
	env := entry.Env{
		Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	os.Exit(finish(os.Stderr, run(context.Background(), env)))
}

// finish prints why a personality failed, as one line and what belongs below it, and returns the exit code.
func finish(stderr io.Writer, err error) int {
	if line := fault.Text(err); line != "" && fault.ExitCode(err) != fault.ExitInterrupted {
		fmt.Fprintln(stderr, "capsem:", line)
	}
	return fault.ExitCode(err)
}
