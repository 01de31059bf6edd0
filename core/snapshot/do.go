package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

// Answer is the result of a request, which writes itself: JSON, or the bytes of a file. It must be called, once.
type Answer func(w io.Writer) error

// Do does what a request of the owner asks for.
func (s *Store) Do(ctx context.Context, req *proto.SnapshotRequest) (Answer, error) {
	return s.do(ctx, req, nil)
}

func (s *Store) do(ctx context.Context, req *proto.SnapshotRequest, g *Guest) (Answer, error) {
	if err := req.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "%s", err)
	}
	path := string(req.Path)
	switch req.Op {
	case proto.SnapshotCreate:
		return answer(s.Create(ctx, api.OriginManual, req.Name))
	case proto.SnapshotList:
		return answer(s.List(ctx))
	case proto.SnapshotChanges:
		return answer(s.Changes(ctx))
	case proto.SnapshotDiff:
		return answer(s.Diff(ctx, req.Checkpoint, req.To, path))
	case proto.SnapshotRevert:
		return answer(s.revertFor(ctx, g, path, req.Checkpoint))
	case proto.SnapshotHistory:
		return answer(s.History(ctx, path))
	case proto.SnapshotDelete:
		return answer(api.Success{Success: true}, s.deleteFor(ctx, g, req.Checkpoint))
	case proto.SnapshotCompact:
		return answer(s.compactFor(ctx, g, req.Checkpoints, req.Name))
	default: // read: the request is valid
		return s.content(ctx, g, req.Checkpoint, path)
	}
}

func answer[T any](v T, err error) (Answer, error) {
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		return nil
	}, nil
}

func (s *Store) content(ctx context.Context, g *Guest, checkpoint, path string) (Answer, error) {
	f, err := s.OpenFile(ctx, checkpoint, path)
	if err != nil {
		return nil, err
	}
	if g != nil { // it may read as slowly as it likes, and keep no snapshot from being made or removed
		f.unpin()
	}
	return func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return errors.Join(err, f.Close())
	}, nil
}

// Made is a snapshot that was made.
type Made struct {
	Slot         int
	Origin, Name string
	Files        int
}
