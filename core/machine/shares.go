package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/share"
)

// workspaceTag names the workspace, workspaceDir is where the guest has it.
const workspaceTag, workspaceDir = "workspace", "/root"

// shares are the directories that the VM shares with the host, by tag.
type shares map[string]*share.Server

// mounts lists what the guest mounts.
func (w *Worker) mounts() []proto.Share {
	if !w.cfg.Share {
		return nil
	}
	all := []proto.Share{{Tag: workspaceTag, Dir: workspaceDir, Furnish: !w.making && isEmpty(w.dirNow().Workspace())}}
	for i, m := range w.spec.Mounts {
		all = append(all, proto.Share{Tag: mountTag(i), Dir: m.Guest, ReadOnly: m.ReadOnly})
	}
	return all
}

func mountTag(i int) string { return "mount-" + strconv.Itoa(i) }

// shareNothing opens an empty directory in the place of the workspace, for a template that is being made.
func (w *Worker) shareNothing() (end func() error, err error) {
	dir := filepath.Join(w.dir.Dir(), "nothing") // no file of a template: it goes when that is finished
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("share an empty directory: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("share an empty directory: %w", err)
	}
	s, err := share.New(share.Config{Root: dir, Tag: workspaceTag, UID: os.Geteuid(), GID: os.Getegid(), Log: w.log})
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	w.mu.Lock()
	w.shares = shares{workspaceTag: s}
	w.mu.Unlock()
	return s.Close, nil
}

// openShares opens the shared directories, as they were when the VM was saved if it goes on.
func (w *Worker) openShares(saved *checkpoint.Saved) error {
	if !w.cfg.Share || w.sharesNow() != nil {
		return nil // a machine that follows another has them
	}
	states := map[string][]byte{}
	if saved != nil && len(saved.Extra) > 0 {
		if err := proto.Unmarshal(saved.Extra, &states); err != nil {
			return fmt.Errorf("open shared directories: %w", err)
		}
	}
	if state := states[namesKey]; len(state) > 0 && w.network != nil {
		if err := w.network.names.Import(state); err != nil {
			w.log.Warn("the names that the VM has looked up are forgotten: it must look them up again", "error", err)
		}
	}
	if err := os.Mkdir(w.dirNow().Workspace(), 0o700); err == nil {
		w.log.Warn("the workspace was missing: it is empty now")
	}
	uid, gid := os.Geteuid(), os.Getegid()
	all := shares{}
	open := func(tag string, cfg share.Config) error {
		cfg.Tag, cfg.UID, cfg.GID, cfg.Log, cfg.State = tag, uid, gid, w.log, states[tag]
		cfg.Events = w.recordFile(tag)
		s, err := share.New(cfg)
		if err != nil {
			return fault.Wrap(err, fault.Conflict, "the directory %s, which VM %s shares, cannot be opened: %s", cfg.Root, w.spec.ID, err).
				WithHint("put it back, or start the VM without it")
		}
		all[tag] = s
		return nil
	}
	workspace, err := filepath.EvalSymlinks(w.dirNow().Workspace()) // no guest can put a link there
	if err != nil {
		return fmt.Errorf("open workspace: %w", err)
	}
	err = open(workspaceTag, share.Config{
		Root: workspace, Quota: share.Quota{Bytes: int64(w.spec.DiskMB) << 20}, Copied: saved != nil && saved.Copied,
	})
	for i, m := range w.spec.Mounts {
		if err == nil {
			err = open(mountTag(i), share.Config{Root: m.Host, ReadOnly: m.ReadOnly})
		}
	}
	if err != nil {
		return errors.Join(err, all.close())
	}
	w.mu.Lock()
	w.shares = all
	w.mu.Unlock()
	return nil
}

func (w *Worker) sharesNow() shares {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shares
}

// serveFiles serves one stream of a shared directory.
func (w *Worker) serveFiles(ctx context.Context, tag string, stream io.ReadWriteCloser) {
	s := w.sharesNow()[tag]
	if s == nil {
		w.log.Warn("the guest asks for a directory that is not shared", "tag", plain(tag))
		return
	}
	if err := s.Serve(ctx, stream); err != nil && ctx.Err() == nil {
		w.log.Warn("a shared directory's stream broke", "tag", tag, "error", err)
	}
}

// saveShares is what the shared directories need to go on, for a machine that stands still.
func (w *Worker) saveShares(ctx context.Context) ([]byte, error) {
	all := w.sharesNow()
	if len(all) == 0 {
		return nil, nil
	}
	states := map[string][]byte{}
	for tag, s := range all {
		state, err := s.Save(ctx)
		if err != nil {
			return nil, fmt.Errorf("save shared directory: %w", err)
		}
		states[tag] = state
	}
	if w.network != nil {
		states[namesKey] = w.network.names.Export()
	}
	return proto.Marshal(states) //nolint:wrapcheck // says what it did
}

// unshared says that the guest did not mount its workspace or another directory that it shares: what it writes would not be kept where it should.
func (w *Worker) unshared(a guestAgent) error {
	failed := a.Failed()
	i := slices.IndexFunc(failed, func(f string) bool { return strings.HasPrefix(f, "mount ") })
	if len(w.sharesNow()) == 0 || i < 0 {
		return nil
	}
	return fault.New(fault.Unavailable, "the guest did not mount what it shares: %s", failed[i])
}

func (s shares) close() error {
	var failed []error
	for _, server := range s {
		failed = append(failed, server.Close())
	}
	return errors.Join(failed...)
}
