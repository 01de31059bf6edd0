//go:build !linux

package share

import (
	"context"
	"io"
)

// Server is not there: on macOS the directory is served by VirtioFS of the virtualization framework.
type Server struct{}

// New refuses.
func New(Config) (*Server, error) { return nil, ErrUnsupported }

// Serve refuses.
func (*Server) Serve(context.Context, io.ReadWriteCloser) error { return ErrUnsupported }

// Save refuses.
func (*Server) Save(context.Context) ([]byte, error) { return nil, ErrUnsupported }

// Invalidate does nothing.
func (*Server) Invalidate(string) {}

// Sync refuses.
func (*Server) Sync() error { return ErrUnsupported }

// Stats is empty.
func (*Server) Stats() Stats { return Stats{} }

// Close does nothing.
func (*Server) Close() error { return nil }

// Hold refuses.
func (*Server) Hold(int64) error { return ErrUnsupported }

// Release does nothing.
func (*Server) Release(int64, bool) {}
