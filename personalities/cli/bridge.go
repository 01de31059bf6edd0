package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"capsem/core/fault"
	"capsem/core/proto"
)

const (
	// detachKey is Ctrl-].
	detachKey = 0x1d
	// signalPatience is how long a signal may wait behind input that the guest does not take, before the connection is cut,
	// which ends the command as well.
	signalPatience = time.Second
	// impatience is the number of signals after which the user gets the prompt back whatever the guest does.
	impatience = 3
)

// bridge joins the user's streams with a stream of frames (proto.Kind): a command's, or a terminal session's.
type bridge struct {
	conn           io.ReadWriteCloser
	stdout, stderr io.Writer
	// stdin is forwarded when set.
	stdin *input
	// session says that this is a view of a terminal session, which goes on without its viewer: Ctrl-] and signals that
	// mean to end something only end the bridge.
	session bool
	// signals brings the user's signals: SIGWINCH sends what size returns, the others go to the command.
	signals <-chan os.Signal
	size    func() proto.WindowSize
	// restore is called before a panic in one of the bridge's goroutines goes on.
	restore func()

	mu       sync.Mutex // guards writes to conn
	cut      sync.Once
	detached atomic.Bool
	killer   atomic.Int32 // the last signal that was meant to end the command
}

// outcome is how a bridge ended.
type outcome struct {
	exit proto.ExitStatus
	// detached says that the user left with Ctrl-]; exit is empty then.
	detached bool
}

// run copies until the command ends, the user detaches, or the connection breaks. It closes conn and waits for its goroutines.
func (b *bridge) run(ctx context.Context) (outcome, error) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(guarded(b.restore, func() { b.control(ctx, over) }))
	if b.stdin != nil {
		forward := guarded(b.restore, b.forwardInput)
		if b.stdin.canWait() {
			wg.Go(forward)
		} else {
			go forward()
		}
	}
	exit, err := b.output()
	close(over)
	b.hangUp()
	if b.stdin != nil {
		b.stdin.giveUp()
	}
	wg.Wait()
	switch sig := b.killer.Load(); {
	case b.detached.Load():
		return outcome{detached: true}, nil
	case err == nil:
		return outcome{exit: exit}, nil
	case ctx.Err() != nil:
		return outcome{}, fmt.Errorf("follow the command: %w", ctx.Err())
	case sig != 0 && !fault.Is(err, fault.Internal):
		return outcome{}, &fault.Exit{Status: 128 + int(sig)}
	}
	return outcome{}, err
}

// hangUp ends the connection, which ends an attached command.
func (b *bridge) hangUp() {
	b.cut.Do(func() {
		// Nothing is expected of the peer any more.
		_ = b.conn.Close()
	})
}

// output writes what comes from the guest until its exit.
func (b *bridge) output() (proto.ExitStatus, error) {
	var exit proto.ExitStatus
	frames := proto.NewStreamReader(bufio.NewReaderSize(b.conn, proto.MaxChunk))
	for {
		kind, data, err := frames.Next()
		if err != nil {
			return exit, fault.Wrap(err, fault.Unavailable, "the connection to the VM was lost before the command ended").
				WithHint("see capsem list and capsem logs")
		}
		switch kind {
		case proto.KindStdout:
			_, err = b.stdout.Write(data)
		case proto.KindStderr:
			_, err = b.stderr.Write(data)
		case proto.KindExit:
			if err := json.Unmarshal(data, &exit); err != nil {
				return exit, fault.Wrap(err, fault.Internal, "the VM sent a malformed end of the command")
			}
			return exit, nil
		case proto.KindError:
			return exit, streamFault(data)
		default: // Started and what later versions add
		}
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
			return exit, &fault.Exit{Status: 128 + int(syscall.SIGPIPE)}
		}
		if err != nil {
			return exit, fault.Wrap(err, fault.Internal, "cannot write the command's output: %s", err)
		}
	}
}

// streamFault is the error in a KindError frame.
func streamFault(data []byte) error {
	var se proto.StreamError
	if err := json.Unmarshal(data, &se); err != nil {
		return fault.Wrap(err, fault.Internal, "the VM sent a malformed error")
	}
	return &fault.Error{Code: fault.Code(se.Code), Message: se.Message, Hint: se.Hint}
}

// forwardInput sends stdin to the command until it ends.
func (b *bridge) forwardInput() {
	buf := make([]byte, proto.MaxChunk)
	for {
		n, err := b.stdin.Read(buf)
		key := -1
		if b.session {
			key = bytes.IndexByte(buf[:n], detachKey)
		}
		leave := key >= 0
		if leave {
			n = key
		}
		if n > 0 && b.send(proto.KindStdin, buf[:n]) != nil {
			return // output sees the broken connection too, and says so
		}
		if leave {
			b.detached.Store(true)
			b.hangUp()
			return
		}
		if err != nil {
			if !errors.Is(err, errStopped) {
				_ = b.send(proto.KindStdin, nil) // as above
			}
			return
		}
	}
}

// control passes the user's signals on until the bridge is over, and cuts the connection when ctx ends.
func (b *bridge) control(ctx context.Context, over <-chan struct{}) {
	signals := 0
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			b.hangUp()
			return
		case sig := <-b.signals:
			if sig == syscall.SIGWINCH {
				b.resize()
				continue
			}
			signals++
			b.signal(sig, signals)
		}
	}
}

func (b *bridge) resize() {
	size := b.size()
	if data, err := json.Marshal(size); err == nil {
		b.sendSoon(proto.KindResize, data)
	}
}

// signal sends the first signal as it is and makes the second SIGKILL. After the third, or when the guest takes nothing,
// the connection is cut.
func (b *bridge) signal(sig os.Signal, count int) {
	number, ok := sig.(syscall.Signal)
	if !ok || number == syscall.SIGPIPE {
		return // a broken stdout is seen by the write that meets it
	}
	b.killer.Store(int32(number)) //nolint:gosec // a signal number is small
	if count >= impatience || b.session {
		b.hangUp()
		return
	}
	if count > 1 {
		number = syscall.SIGKILL
	}
	if !b.sendSoon(proto.KindSignal, []byte{byte(number)}) {
		b.hangUp()
	}
}

// send writes one frame.
func (b *bridge) send(kind proto.Kind, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return proto.WriteStreamFrame(b.conn, kind, data) //nolint:wrapcheck // says all there is
}

// sendSoon writes one frame unless input that the guest does not take is in the way; it reports whether it was written.
func (b *bridge) sendSoon(kind proto.Kind, data []byte) bool {
	done := make(chan error, 1)
	go func() { done <- b.send(kind, data) }()
	timer := time.NewTimer(signalPatience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err == nil
	case <-timer.C:
		return false // the goroutine ends when the connection is cut, at the latest with the bridge
	}
}
