package aggregator

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"capsem/core/mcp/peer"
	"capsem/core/mcp/sandbox"
)

// The descriptors that the process begins with besides the standard ones.
const thirdDescriptor = 3

// Process is the aggregator's process: it locks itself up and serves the worker at the other end of its standard input and output.
func Process(ctx context.Context, log *slog.Logger) error {
	// What is read from files is read now.
	roots, err := x509.SystemCertPool()
	if err != nil {
		log.Warn("there are no certificates to trust", "error", err)
		roots = x509.NewCertPool()
	}
	conn, err := socket(os.Stdin)
	if err != nil {
		return fmt.Errorf("standard input is no socket of a worker: %w", err)
	}
	third := os.NewFile(thirdDescriptor, "descriptors")
	descriptors, err := socket(third)
	if err = errors.Join(err, third.Close()); err != nil {
		return fmt.Errorf("there is no socket for pipes: %w", err)
	}
	pipes, ok := descriptors.(*net.UnixConn)
	if !ok {
		return errors.New("there is no socket for pipes")
	}
	if err := sandbox.LockNetworkOnly(); err != nil {
		return fmt.Errorf("lock up the aggregator: %w", err)
	}
	return Run(ctx, Config{Conn: conn, Descriptors: pipes, Roots: roots, Log: log})
}

func socket(f *os.File) (net.Conn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use socket: %w", err)
	}
	return conn, nil
}

// maxLaunch bounds what is told of a program to be started.
const maxLaunch = 1 << 20

// LaunchProcess is the process that becomes a program of the owner's: descriptor 3 tells which.
func LaunchProcess() error {
	from := os.NewFile(thirdDescriptor, "program")
	body, err := io.ReadAll(io.LimitReader(from, maxLaunch+1))
	if err = errors.Join(err, from.Close()); err != nil {
		return fmt.Errorf("read what to start: %w", err)
	}
	if len(body) > maxLaunch {
		return errors.New("what to start is described too long")
	}
	var p sandbox.Program
	if err := peer.Unmarshal(body, &p); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	return sandbox.Launch(&p) //nolint:wrapcheck // says what it did
}
