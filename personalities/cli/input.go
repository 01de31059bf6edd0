package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// errStopped is a read that was given up because nobody wants the input any more.
var errStopped = errors.New("input no longer wanted")

// input reads the user's stdin so that a read that waits can be given up: the command may end while nobody types. It
// takes nothing from stdin before a Read asks for it, so what the command did not read is left for the next program.
type input struct {
	file *os.File
	// plain is an input that is no file, such as a pipe inside this process: giving up closes it where that is possible.
	plain      io.Reader
	wake, stop *os.File
	once       sync.Once
}

// newInput prepares stdin. close must be called after the last Read has returned.
func newInput(stdin io.Reader) (*input, error) {
	f, ok := stdin.(*os.File)
	if !ok {
		return &input{plain: stdin}, nil
	}
	wake, stop, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("prepare standard input: %w", err)
	}
	return &input{file: f, wake: wake, stop: stop}, nil
}

// giveUp makes a waiting Read and every later one return errStopped.
func (in *input) giveUp() {
	in.once.Do(func() {
		if in.stop != nil {
			// Closing the writing end makes the reading end readable for good.
			_ = in.stop.Close()
		} else if c, ok := in.plain.(io.Closer); ok {
			_ = c.Close()
		}
	})
}

// canWait reports whether giveUp ends a Read that waits, so that its goroutine can be waited for.
func (in *input) canWait() bool {
	_, closes := in.plain.(io.Closer)
	return in.file != nil || closes
}

// Read waits for input or for giveUp.
func (in *input) Read(p []byte) (int, error) {
	if in.file == nil {
		return in.plain.Read(p) //nolint:wrapcheck // an io.Reader hands io.EOF through
	}
	if err := in.wait(); err != nil {
		return 0, err
	}
	return in.file.Read(p) //nolint:wrapcheck // an io.Reader hands io.EOF through
}

// wait uses select and not poll, which does not know terminals on macOS.
func (in *input) wait() error {
	stdin, wake := int(in.file.Fd()), int(in.wake.Fd())
	for {
		var set unix.FdSet
		set.Set(stdin)
		set.Set(wake)
		_, err := unix.Select(max(stdin, wake)+1, &set, nil, nil, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for standard input: %w", err)
		case set.IsSet(wake):
			return errStopped
		}
		return nil
	}
}

func (in *input) close() {
	in.giveUp()
	if in.wake != nil {
		_ = in.wake.Close()
	}
}
