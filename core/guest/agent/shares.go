//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"capsem/core/proto"
)

// mountTime bounds mounting one shared directory.
const mountTime = 30 * time.Second

// mountAll mounts the shared directories that are not mounted yet. A mount stays over the end of its session: it waits for the next, and
// this for it.
func (a *Agent) mountAll(ctx context.Context, shares []proto.Share, met map[string]uint64) error {
	ctx, cancel := context.WithTimeout(ctx, mountTime)
	defer cancel()
	var failed []error
	for _, s := range shares {
		if a.Mount == nil {
			continue
		}
		if a.mounted[s.Dir] {
			if err := a.again(ctx, s, met); err != nil {
				failed = append(failed, fmt.Errorf("mount %s: %w", s.Dir, err))
			}
			continue
		}
		err := a.Mount(ctx, s, func(ctx context.Context) (io.ReadWriteCloser, error) { return a.dialShare(ctx, s.Tag) })
		if err != nil {
			failed = append(failed, fmt.Errorf("mount %s: %w", s.Dir, err))
			continue
		}
		a.mounted[s.Dir] = true
	}
	return errors.Join(failed...)
}

// again waits for a directory that was mounted in an earlier session.
func (a *Agent) again(ctx context.Context, s proto.Share, met map[string]uint64) error {
	if a.Mounts == nil {
		return nil
	}
	return a.Mounts.Await(ctx, s.Dir, met[s.Dir]) //nolint:wrapcheck // says what it did
}

// dialShare opens a stream to the host's side of a shared directory, in the session that is up or the next.
func (a *Agent) dialShare(ctx context.Context, tag string) (io.ReadWriteCloser, error) {
	s, err := a.Direct(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.Open(ctx, proto.StreamHeader{Port: proto.PortFiles, Dest: tag})
	if err != nil {
		return nil, fmt.Errorf("reach the host's files: %w", err)
	}
	return st, nil
}
