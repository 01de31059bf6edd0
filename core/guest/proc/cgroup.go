//go:build linux

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// spare is how many empty cgroups are made before they are needed, so that a command need not wait for one; maxKept is how many
// are kept once there were more commands at once.
const spare, maxKept = 4, 64

// Cgroups makes a cgroup v2 directory for each command, so that a kill reaches processes that left its session. A nil
// *Cgroups gives nil groups, and kills then go by session.
type Cgroups struct {
	root string

	mu     sync.Mutex
	next   int
	ready  []*Cgroup
	closed bool
	linger []string
	fill   chan struct{}
	stop   chan struct{}
	wg     sync.WaitGroup
}

// Cgroup is the cgroup of one command, then of another. All its methods may be called on nil.
type Cgroup struct {
	all  *Cgroups
	path string

	mu sync.Mutex
	// dir is nil once the cgroup is not to be used any more; events is its cgroup.events.
	dir, events *os.File
}

// NewCgroups prepares root, a directory in a mounted cgroup v2 tree. It fails where that is not to be had; run without then.
func NewCgroups(root string) (*Cgroups, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.kill")); err != nil {
		return nil, fmt.Errorf("use cgroup: %w", err)
	}
	c := &Cgroups{root: root, fill: make(chan struct{}, 1), stop: make(chan struct{})}
	c.clear()
	c.wg.Go(c.keepSpare)
	c.refill()
	return c, nil
}

// clear removes what an earlier agent left.
func (c *Cgroups) clear() {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && e.IsDir() {
			c.next = max(c.next, n)
			c.remove(filepath.Join(c.root, e.Name()))
		}
	}
}

// Close removes the spare cgroups.
func (c *Cgroups) Close() {
	if c == nil {
		return
	}
	close(c.stop)
	c.wg.Wait()
	c.mu.Lock()
	ready := c.ready
	c.ready, c.closed = nil, true
	c.mu.Unlock()
	for _, g := range ready {
		g.Release()
	}
	c.sweep()
}

// Take returns an empty cgroup; nil when there are none to be had.
func (c *Cgroups) Take() *Cgroup {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	if n := len(c.ready); n > 0 {
		g := c.ready[n-1]
		c.ready = c.ready[:n-1]
		c.mu.Unlock()
		return g
	}
	c.mu.Unlock()
	g, err := c.make()
	if err != nil {
		return nil
	}
	return g
}

func (c *Cgroups) make() (*Cgroup, error) {
	c.mu.Lock()
	c.next++
	path := filepath.Join(c.root, strconv.Itoa(c.next))
	c.mu.Unlock()
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	events, err := os.Open(filepath.Join(path, "cgroup.events"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open cgroup: %w", err), dir.Close())
	}
	return &Cgroup{all: c, path: path, dir: dir, events: events}, nil
}

// keepSpare does in the background what no command should wait for.
func (c *Cgroups) keepSpare() {
	for {
		select {
		case <-c.fill:
		case <-c.stop:
			return
		}
		c.sweep()
		for c.lacking() {
			g, err := c.make()
			if err != nil {
				break
			}
			c.mu.Lock()
			c.ready = append(c.ready, g)
			c.mu.Unlock()
		}
	}
}

func (c *Cgroups) lacking() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ready) < spare
}

func (c *Cgroups) refill() {
	select {
	case c.fill <- struct{}{}:
	default:
	}
}

// remove removes a cgroup, or remembers it as long as processes that outlive their command are in it.
func (c *Cgroups) remove(path string) {
	if err := unix.Rmdir(path); errors.Is(err, unix.EBUSY) {
		c.mu.Lock()
		c.linger = append(c.linger, path)
		c.mu.Unlock()
	}
}

// sweep tries again to remove the cgroups of commands that left processes behind.
func (c *Cgroups) sweep() {
	c.mu.Lock()
	old := c.linger
	c.linger = nil
	c.mu.Unlock()
	for _, path := range old {
		c.remove(path)
	}
}

func (g *Cgroup) fd() int { return int(g.dir.Fd()) }

var errNoCgroup = errors.New("no cgroup")

// kill sends KILL to everything in the cgroup.
func (g *Cgroup) kill() error {
	if g == nil {
		return errNoCgroup
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dir == nil {
		return errNoCgroup
	}
	fd, err := unix.Openat(int(g.dir.Fd()), "cgroup.kill", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	return nil
}

// Release gives the cgroup up. An empty one serves again, since making and removing them takes longer than most commands' start;
// one in which processes outlive their command is removed once it is empty.
func (g *Cgroup) Release() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dir == nil {
		return
	}
	c := g.all
	if g.empty() && c.keep(g) {
		return
	}
	_, _ = g.dir.Close(), g.events.Close() // nothing was written
	g.dir = nil
	c.mu.Lock()
	c.linger = append(c.linger, g.path)
	c.mu.Unlock()
	c.refill()
}

// empty reports whether no process is left in the cgroup.
func (g *Cgroup) empty() bool {
	var text [64]byte
	n, _ := g.events.ReadAt(text[:], 0) // no text is not empty
	return bytes.Contains(text[:n], []byte("populated 0\n"))
}

// keep takes a cgroup back; false when there are enough.
func (c *Cgroups) keep(g *Cgroup) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.ready) >= maxKept {
		return false
	}
	c.ready = append(c.ready, g)
	return true
}
