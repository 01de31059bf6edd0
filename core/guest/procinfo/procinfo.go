//go:build linux

// Package procinfo says which process of the guest is behind a connection: the kernel's socket diagnosis gives the socket's
// inode, and the files of the processes are searched for it. It is on the way of every connection, so it is bounded in time.
package procinfo

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

const (
	// patience bounds one answer in the guest. After it the process is an unknown one.
	patience = 100 * time.Millisecond
	// maxRecent bounds the processes that are looked at first.
	maxRecent = 16
	// maxAge is how long the description of a process that goes on is used again.
	maxAge = time.Second
)

// Finder finds processes. Make it with New; it is safe for concurrent use.
type Finder struct {
	root    string
	sockets diag
	// patience bounds one answer.
	patience time.Duration

	mu sync.Mutex
	// recent are the processes found last, the last one first: who has opened one connection often opens the next.
	recent []int
	// known are descriptions of at most maxRecent processes.
	known map[int]known
}

// known is a description that may be used again.
type known struct {
	life  string
	claim proto.ProcessClaim
	at    time.Time
}

// New returns a Finder over the /proc file system at root.
func New(root string) *Finder { return &Finder{root: root, patience: patience, known: map[int]known{}} }

// Close gives up the socket to the kernel.
func (f *Finder) Close() error { return f.sockets.close() }

// TCP returns the process whose connection goes from local to remote, as that process sees them: before any redirection. What
// cannot be found out is left out.
func (f *Finder) TCP(local, remote netip.AddrPort) proto.ProcessClaim {
	deadline := time.Now().Add(f.patience)
	return f.claim(f.sockets.find(unix.IPPROTO_TCP, local, remote), deadline)
}

// UDP returns the process that sends from local.
func (f *Finder) UDP(local netip.AddrPort) proto.ProcessClaim {
	deadline := time.Now().Add(f.patience)
	// Most are connected to the address in resolv.conf, or not at all: that is found at once.
	s := f.sockets.find(unix.IPPROTO_UDP, local, netip.AddrPortFrom(local.Addr(), 53))
	if s.inode == 0 {
		s = f.sockets.search(unix.IPPROTO_UDP, local)
	}
	return f.claim(s, deadline)
}

func (f *Finder) claim(s socket, deadline time.Time) proto.ProcessClaim {
	if s.inode == 0 {
		return proto.ProcessClaim{}
	}
	pid := f.owner(s.inode, deadline)
	if pid == 0 {
		return proto.ProcessClaim{UID: s.uid}
	}
	c := f.describe(pid, deadline)
	c.UID = s.uid
	return c
}

// describe says who a process is. Much is read for that, so a client that opens one connection after another is not described anew each time.
func (f *Finder) describe(pid int, deadline time.Time) proto.ProcessClaim {
	own := statusOf(f.root, pid)
	f.mu.Lock()
	k, ok := f.known[pid]
	f.mu.Unlock()
	if ok && own.life != "" && k.life == own.life && time.Since(k.at) < maxAge {
		return k.claim
	}
	k = known{life: own.life, claim: describe(f.root, pid, own, deadline), at: time.Now()}
	if time.Now().After(deadline) {
		return k.claim // it may not be whole
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) >= maxRecent {
		clear(f.known)
	}
	f.known[pid] = k
	return k.claim
}

// owner searches the processes for one that has the socket open; 0 when there is none.
func (f *Finder) owner(inode uint32, deadline time.Time) int {
	f.mu.Lock()
	recent := slices.Clone(f.recent)
	f.mu.Unlock()
	for _, pid := range recent {
		if holds(f.root, pid, inode, deadline) {
			f.found(pid)
			return pid
		}
	}
	// The youngest first: they have just begun what they connect for.
	for _, pid := range slices.Backward(processes(f.root)) {
		if time.Now().After(deadline) {
			return 0
		}
		if !slices.Contains(recent, pid) && holds(f.root, pid, inode, deadline) {
			f.found(pid)
			return pid
		}
	}
	return 0
}

// found moves a process to the front of the recent ones.
func (f *Finder) found(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.recent, pid); i == 0 {
		return
	} else if i > 0 {
		f.recent = slices.Delete(f.recent, i, i+1)
	}
	f.recent = slices.Insert(f.recent, 0, pid)
	f.recent = f.recent[:min(len(f.recent), maxRecent)]
}
