package qemu

import (
	"context"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

const (
	// stallEvery is how long a machine that found the host's disk full waits before it tries again.
	stallEvery = 2 * time.Second
	// noSpace is what is told of it.
	noSpace = "the host's disk is full"
)

// stall is a machine's wait for room on the host's disk. QEMU stops the virtual CPUs when a write finds none (its "werror=enospc",
// the default) and repeats the write when they go on, so nothing is lost and the guest sees nothing of it.
type stall struct {
	mu sync.Mutex
	// paused says that somebody wants the virtual CPUs stopped, full says that the last try found no room.
	paused, full bool
	waiting      bool
}

// noRoom reports whether an event is a write that found the disk full, and has stopped the machine.
func noRoom(e qmp.Event) bool {
	full, _ := e.Data["nospace"].(bool)
	action, _ := e.Data["action"].(string)
	return e.Event == "BLOCK_IO_ERROR" && full && action == "stop"
}

// stalled starts to wait for room; each further event says that there still is none.
func (m *machine) stalled() {
	m.stall.mu.Lock()
	defer m.stall.mu.Unlock()
	m.stall.full = true
	if m.stall.waiting {
		return
	}
	m.stall.waiting = true
	m.work.Go(m.waitForRoom)
}

// waitForRoom lets the machine try again and again, until a while passes without another error.
func (m *machine) waitForRoom() {
	m.log.Warn("machine stands still", "why", noSpace)
	m.tellStall(noSpace)
	tick := time.NewTicker(stallEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.dying:
			return
		}
		if m.roomAgain() {
			m.log.Info("machine goes on: there is room on the host's disk")
			m.tellStall("")
			return
		}
	}
}

// roomAgain reports whether the last try went well; if not, it makes another one.
func (m *machine) roomAgain() bool {
	m.stall.mu.Lock()
	full, paused := m.stall.full, m.stall.paused
	m.stall.full, m.stall.waiting = full && paused, full
	m.stall.mu.Unlock()
	switch {
	case !full:
		return true
	case paused:
		return false // whoever wants it so lets it go on, which is a try too
	}
	err := m.qmp.Cont()
	m.stall.mu.Lock()
	m.stall.full = m.stall.full || err != nil
	paused = m.stall.paused
	m.stall.mu.Unlock()
	if paused {
		err = m.qmp.Stop() // it was paused in between
	}
	if err != nil {
		m.log.Debug("cannot let the machine go on", "error", err)
	}
	return false
}

func (m *machine) tellStall(why string) {
	if m.spec.OnStall != nil {
		m.spec.OnStall(why)
	}
}

// hold sets whether somebody wants the virtual CPUs stopped, and does it.
func (m *machine) hold(ctx context.Context, paused bool) error {
	m.stall.mu.Lock()
	m.stall.paused = paused
	m.stall.mu.Unlock()
	if paused {
		return m.run(ctx, "pause", m.qmp.Stop)
	}
	return m.run(ctx, "resume", m.qmp.Cont)
}
