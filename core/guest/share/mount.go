//go:build linux

// Package share mounts a directory of the host in the guest: it hands the messages of the kernel's FUSE to a stream, whose
// other end is core/share on the host, and the answers back. It looks into them no further than it must.
//
// Streams come and go: the VM may be suspended and its host side start anew. Requests that have no answer yet are kept, and
// sent again in order in the next stream; the kernel's programs only notice that it took longer.
package share

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"capsem/core/link/rawio"
	"capsem/core/share/wire"
)

// ErrClosed is a mount that was closed before it was ready.
var ErrClosed = errors.New("the shared directory was unmounted")

// Options says what is mounted where.
type Options struct {
	// Dir is the mount point; it must exist.
	Dir string
	// Dial opens a stream to the host's file server. It is called again whenever a stream has ended.
	Dial func(context.Context) (io.ReadWriteCloser, error)
	// ReadOnly mounts read-only; the host refuses changes in any case.
	ReadOnly bool
	// Furnish makes Attach copy into it what is at Dir.
	Furnish bool
	// Log may be nil.
	Log *slog.Logger
}

// Mount is one mounted directory.
type Mount struct {
	opts Options
	log  *slog.Logger
	// fuse is read through Go's poller. Answers are written to fd directly: a notification that the kernel takes its time
	// with must not hold up answers.
	fuse *os.File
	raw  syscall.RawConn
	fd   int
	id   [wire.MountSize]byte

	poll   *pollFile
	known  *known
	behind *behind
	out    *outbox
	notes  chan []byte
	ready  chan struct{}
	inited sync.Once
	// closing makes every further request fail.
	closing atomic.Bool
	stop    context.CancelFunc
	live    sync.WaitGroup
	noted   chan struct{}

	// gen counts the streams that have begun; changed is closed with each.
	genMu   sync.Mutex
	gen     uint64
	changed chan struct{}

	once sync.Once
	err  error
}

// Start mounts the directory and returns when the host has answered for the first time, or with ctx's error.
func Start(ctx context.Context, opts Options) (*Mount, error) {
	m := &Mount{
		opts: opts, log: opts.Log, poll: newPollFile(), known: newKnown(), behind: newBehind(), out: newOutbox(), notes: make(chan []byte, maxNotes), ready: make(chan struct{}),
		noted: make(chan struct{}), changed: make(chan struct{}),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	_, _ = rand.Read(m.id[:]) // never fails
	if err := m.mount(); err != nil {
		return nil, fmt.Errorf("mount shared directory %s: %w", opts.Dir, err)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx)) // until Close
	m.stop = stop
	m.live.Go(m.readKernel)
	m.live.Go(func() { m.dialAll(work) })
	go func() { defer close(m.noted); m.writeNotes() }()
	select {
	case <-m.ready:
		if err := m.unpoll(); err != nil {
			return nil, errors.Join(fmt.Errorf("mount shared directory %s: %w", opts.Dir, err), m.Close())
		}
		m.readAhead()
		return m, nil
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("mount shared directory %s: %w", opts.Dir, ctx.Err()), m.Close())
	}
}

func (m *Mount) mount() error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if m.opts.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, wire.MaxData)
	if err := unix.Mount("capsem", m.opts.Dir, "fuse.capsem", flags, data); err != nil {
		_ = unix.Close(fd)
		return err
	}
	m.fd, m.fuse = fd, os.NewFile(uintptr(fd), "/dev/fuse")
	if m.raw, err = m.fuse.SyscallConn(); err != nil {
		return errors.Join(err, unix.Unmount(m.opts.Dir, unix.MNT_DETACH), m.fuse.Close())
	}
	return nil
}

// readAhead lets the kernel ask for as much in advance as one answer carries; its own default is an eighth of that.
func (m *Mount) readAhead() {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, m.opts.Dir, unix.AT_STATX_DONT_SYNC, 0, &st) != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	if err := os.WriteFile(path, []byte("1024"), 0); err != nil {
		m.log.Debug("set read-ahead of shared directory", "error", err)
	}
}

// Close unmounts the directory, lazily if it is in use. What waits for the host then fails.
func (m *Mount) Close() error {
	m.once.Do(func() {
		m.err = unix.Unmount(m.opts.Dir, 0)
		if m.err != nil {
			m.err = unix.Unmount(m.opts.Dir, unix.MNT_DETACH)
		}
		m.closing.Store(true)
		m.stop()
		m.behind.close()
		for _, unique := range m.out.close() {
			m.fail(unique)
		}
		close(m.notes)
		<-m.noted // not blocked any more: whatever the kernel waited for has failed
		_ = m.fuse.Close()
		m.live.Wait()
	})
	return m.err
}

// Settle waits until the host has carried out all writes that programs were told are done, or for ctx.
func (m *Mount) Settle(ctx context.Context) {
	if m.behind.settled() {
		return
	}
	m.out.flush()
	m.behind.settle(ctx)
}

// fail answers a request in the host's place.
func (m *Mount) fail(unique uint64) { m.refuse(unique, unix.ECONNABORTED) }

func (m *Mount) refuse(unique uint64, errno unix.Errno) {
	var b [wire.OutSize]byte
	wire.PutOut(b[:], -int32(errno), unique) //nolint:gosec // errno is small
	_, _ = rawio.Write(m.fd, b[:])
}
