//go:build linux

package terminal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/frames"
	"capsem/core/guest/proc"
	"capsem/core/proto"
)

const (
	// mainSession is the session of whoever names none.
	mainSession = "main"
	// replaySize is how much of the past a new viewer is shown.
	replaySize = 64 << 10
	// patience is how long one of several viewers may hold up the others.
	patience = 2 * time.Second
	// lastWords is how long a terminal may be silent after the end of its shell.
	lastWords = 200 * time.Millisecond
)

// session is one shell on a terminal.
type session struct {
	proc   *proc.Process
	master *os.File
	input  *frames.Input
	done   chan struct{}
	// over says that the shell has ended.
	over atomic.Bool

	mu      sync.Mutex
	ring    *ring
	viewers []*viewer
	size    proto.WindowSize
	ended   bool
	status  proto.ExitStatus
}

func startSession(spec proc.Spec, size proto.WindowSize) (*session, error) {
	master, slave, err := frames.OpenTerminal(size)
	if err != nil {
		spec.Group.Release()
		return nil, err //nolint:wrapcheck // says what it did
	}
	keyboard, err := frames.Duplicate(master)
	if err != nil {
		spec.Group.Release()
		return nil, errors.Join(err, master.Close(), unix.Close(slave))
	}
	spec.Files, spec.TTY = [3]int{slave, slave, slave}, true
	p, err := proc.Start(spec)
	_ = unix.Close(slave) // nothing was written
	if err != nil {
		return nil, errors.Join(err, master.Close(), keyboard.Close())
	}
	proc.Expendable(p.PID())
	return &session{
		proc: p, master: master, input: frames.Feed(keyboard), done: make(chan struct{}), ring: newRing(replaySize), size: size,
	}, nil
}

// run copies what the terminal shows until it is closed, then tells the viewers how the shell ended.
func (s *session) run() {
	defer close(s.done)
	var pump sync.WaitGroup
	pump.Go(s.pump)
	status := s.proc.Wait()
	s.over.Store(true)
	_ = s.master.SetReadDeadline(time.Now()) // a closed file has ended
	pump.Wait()
	s.input.Close()
	_ = s.master.Close() // nothing was written
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.status = true, status
	for _, v := range s.viewers {
		v.finish(status)
	}
}

// pump reads until the terminal is hung up, as the end of its shell does, or is silent for a while after that.
func (s *session) pump() {
	buf := make([]byte, 32<<10)
	for silent := false; ; {
		if s.over.Load() {
			_ = s.master.SetReadDeadline(time.Now().Add(lastWords)) // a closed file has ended
		}
		n, err := s.master.Read(buf)
		if n > 0 {
			silent = false
			s.publish(buf[:n])
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !silent:
			silent = true
		default:
			return
		}
	}
}

// publish shows data to every viewer and to those to come, then waits for viewers that are too far behind.
func (s *session) publish(data []byte) {
	s.mu.Lock()
	s.ring.write(data)
	for _, v := range s.viewers {
		v.push(data)
	}
	viewers := s.viewers
	s.mu.Unlock()
	for _, v := range viewers {
		s.waitFor(v)
	}
}

// waitFor waits until a viewer has caught up. A single viewer may take any time, as a terminal that is stopped does; one of
// several is dropped when its time is up.
func (s *session) waitFor(v *viewer) {
	for v.behind() {
		timer := time.NewTimer(patience)
		select {
		case <-v.room:
		case <-v.gone:
			timer.Stop()
			return
		case <-timer.C:
			if s.shared() {
				v.drop()
			}
		}
		timer.Stop()
	}
}

func (s *session) shared() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.viewers) > 1
}

// past is what the terminal showed last.
func (s *session) past() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ring.snapshot()
}

// attach adds a viewer, which gets the replay and then every byte after it; false when the session has ended.
func (s *session) attach(v *viewer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if past := s.ring.snapshot(); len(past) > 0 {
		v.push(past)
	}
	s.viewers = append(slices.Clip(s.viewers), v)
	s.fit(v)
	return true
}

func (s *session) detach(v *viewer) {
	v.drop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewers = slices.DeleteFunc(slices.Clone(s.viewers), func(o *viewer) bool { return o == v })
}

// fit gives the terminal the size of the viewer that was active last. Called with mu held.
func (s *session) fit(v *viewer) {
	if s.size == v.size {
		return
	}
	if frames.SetSize(s.master, v.size) == nil {
		s.size = v.size
	}
}

// resize notes a viewer's new size and adopts it.
func (s *session) resize(v *viewer, size proto.WindowSize) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.size = size
	s.fit(v)
}

// typed passes a viewer's input on.
func (s *session) typed(v *viewer, data []byte, src *frames.Source) error {
	s.mu.Lock()
	s.fit(v)
	s.mu.Unlock()
	if err := s.input.Put(data, src); err != nil {
		return fmt.Errorf("pass input on: %w", err)
	}
	return nil
}
