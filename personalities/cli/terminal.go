package cli

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"capsem/core/fault"
	"capsem/core/proto"
)

// asTerminal returns the file behind a stream when it is a terminal.
func asTerminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

func isTerminal(stream any) bool {
	_, ok := asTerminal(stream)
	return ok
}

// windowSize is the size of the user's window; 80x24 when it cannot be known.
func windowSize(streams ...any) proto.WindowSize {
	for _, stream := range streams {
		f, ok := asTerminal(stream)
		if !ok {
			continue
		}
		cols, rows, err := term.GetSize(int(f.Fd()))
		size := proto.WindowSize{Cols: clamp(cols), Rows: clamp(rows)}
		if err == nil && size.Validate() == nil {
			return size
		}
	}
	return proto.WindowSize{Cols: 80, Rows: 24}
}

func clamp(n int) uint16 { return uint16(min(max(n, 0), 4096)) }

// rawMode turns the terminal's own line editing, echo and signals off, so that every key reaches the guest. The function
// it returns puts the terminal back; it may be called more than once, from any goroutine.
func rawMode(stdin io.Reader) (restore func(), err error) {
	f, ok := asTerminal(stdin)
	if !ok {
		return func() {}, nil
	}
	fd := int(f.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "cannot set the terminal to raw mode: %s", err)
	}
	return sync.OnceFunc(func() {
		// The terminal may be gone already; there is nobody to tell.
		_ = term.Restore(fd, old)
	}), nil
}

// guarded wraps what runs in a goroutine while the terminal is raw: a panic there would end the process without running the
// caller's defers and leave the user's terminal unusable.
func guarded(restore func(), f func()) func() {
	return func() {
		defer func() {
			if p := recover(); p != nil {
				restore()
				panic(p)
			}
		}()
		f()
	}
}
