//go:build linux

package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/layout"
)

// fuseMagic is the type of FUSE in statfs: FUSE_SUPER_MAGIC of linux/magic.h.
const fuseMagic = 0x65735546

// settleTime bounds how long somebody waits for writes: a host whose disk hangs must not hold up everything else.
const settleTime = 5 * time.Second

// Mounts are shared directories that are mounted for good.
type Mounts struct {
	mu  sync.Mutex
	all []*Mount
}

// Settle waits until the host has carried out all writes that programs were told are done, within reason.
func (ms *Mounts) Settle() {
	ms.mu.Lock()
	all := ms.all
	ms.mu.Unlock()
	for _, m := range all {
		if m.behind.settled() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), settleTime) //nolint:forbidigo // nobody waits longer than that
		m.Settle(ctx)
		cancel()
	}
}

// Generations tells how often each directory has met the host.
func (ms *Mounts) Generations() map[string]uint64 {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	out := map[string]uint64{}
	for _, m := range ms.all {
		out[m.opts.Dir], _ = m.generation()
	}
	return out
}

// Await waits until a directory has met the host once more than it had, or for ctx.
func (ms *Mounts) Await(ctx context.Context, dir string, since uint64) error {
	ms.mu.Lock()
	all := ms.all
	ms.mu.Unlock()
	for _, m := range all {
		for m.opts.Dir == dir {
			gen, changed := m.generation()
			if gen > since {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return fmt.Errorf("wait for the host's %s: %w", dir, context.Cause(ctx))
			}
		}
	}
	return nil
}

// Attach mounts a shared directory for good, over what an agent that has died may have left there.
func (ms *Mounts) Attach(ctx context.Context, opts Options) error {
	m, err := attach(ctx, opts)
	if err != nil {
		return err
	}
	ms.mu.Lock()
	ms.all = append(slices.Clip(ms.all), m)
	ms.mu.Unlock()
	return nil
}

func attach(ctx context.Context, opts Options) (*Mount, error) {
	if err := detachStale(opts.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make mount point: %w", err)
	}
	if !opts.Furnish {
		return Start(ctx, opts)
	}
	staged := opts
	staged.Dir = filepath.Join(layout.RunDir, "furnished")
	if err := detachStale(staged.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(staged.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make mount point: %w", err)
	}
	m, err := Start(ctx, staged)
	if err == nil {
		err = furnish(opts.Dir, staged.Dir)
	}
	if err == nil {
		err = unix.Mount(staged.Dir, opts.Dir, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Unmount(staged.Dir, 0)
	}
	if err != nil && m != nil {
		err = errors.Join(err, m.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", opts.Dir, err)
	}
	m.opts.Dir = opts.Dir
	return m, nil
}

// detachStale takes away FUSE mounts without a server.
func detachStale(dir string) error {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if !errors.Is(err, unix.ENOTCONN) && (err != nil || st.Type != fuseMagic) {
			return nil // nothing is there, or nothing of ours
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount what was left at %s: %w", dir, err)
		}
	}
}

// furnish copies a directory into an empty one.
func furnish(from, to string) error {
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) > 0 {
		return err //nolint:wrapcheck // names the file
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("furnish: %w", err)
	}
	return nil
}
