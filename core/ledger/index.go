package ledger

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"capsem/core/fault"
	"capsem/core/store"
)

//go:embed index_v1.sql
var indexV1 string

// indexSchema makes main.db.
var indexSchema = store.Schema{indexV1}

// The states of a session in the index.
const (
	// Running: its VM exists.
	Running = "running"
	// Stopped: its VM ended as it should.
	Stopped = "stopped"
	// Crashed: its VM ended otherwise.
	Crashed = "crashed"
	// Terminated: its VM is gone and its record was pruned; only the row in the index is left.
	Terminated = "terminated"
)

// Index is main.db: one row for every session there was. It is for one process.
type Index struct {
	db *store.DB
	// turn lets one caller at a time use the connection.
	turn chan struct{}
}

// OpenIndex opens main.db, or makes it.
func OpenIndex(ctx context.Context, path string) (*Index, error) {
	db, err := store.Open(ctx, path, indexSchema)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return &Index{db: db, turn: make(chan struct{}, 1)}, nil
}

// Close closes the index.
func (x *Index) Close(ctx context.Context) error {
	x.turn <- struct{}{}
	defer func() { <-x.turn }()
	return x.db.Close(ctx) //nolint:wrapcheck // says what it did
}

func (x *Index) update(ctx context.Context, do func(tx *sql.Tx) error) error {
	select {
	case x.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx) //nolint:wrapcheck // nothing to add
	}
	defer func() { <-x.turn }()
	return x.db.Update(ctx, do) //nolint:wrapcheck // says what it did
}

// Begin notes a new session as running. One that is there already is running again.
func (x *Index) Begin(ctx context.Context, s Session) error {
	if !ValidSession(s.ID) {
		return fault.New(fault.Invalid, "%q is no session id", Clean(s.ID, 100))
	}
	if s.Created.IsZero() {
		s.Created = time.Now()
	}
	err := x.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, name, mode, command, status, created_at, scratch_disk_size_gb, ram_bytes,
			storage_mode, rootfs_hash, rootfs_version, forked_from, persistent) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET name=excluded.name, status=excluded.status, persistent=excluded.persistent, stopped_at=NULL`,
			s.ID, Clean(s.Name, MaxText), Clean(s.Mode, MaxText), RedactText(Clean(s.Command, MaxText)), Running, stamp(s.Created), s.DiskGB, s.RAM,
			Clean(s.Storage, MaxText), Clean(s.RootfsHash, MaxText), Clean(s.RootfsVersion, MaxText), Clean(s.ForkedFrom, MaxText), s.Persistent)
		return err //nolint:wrapcheck // by the caller
	})
	if err != nil {
		return fmt.Errorf("note session: %w", err)
	}
	return nil
}

// Rename changes the name of a session's VM, as persist does.
func (x *Index) Rename(ctx context.Context, id, name string, persistent bool) error {
	return x.change(ctx, "rename session", "UPDATE sessions SET name=?, persistent=? WHERE id=?", Clean(name, MaxText), persistent, id)
}

// Finish notes the end of a session: what the record at path sums up to, and its last signed head as an anchor for Verify.
// Without a record the row is only closed.
func (x *Index) Finish(ctx context.Context, id, status, path string, at time.Time) error {
	if status != Stopped && status != Crashed {
		return fault.New(fault.Invalid, "%q is not how a session ends", Clean(status, 100))
	}
	if err := x.change(ctx, "end session", "UPDATE sessions SET status=?, stopped_at=? WHERE id=?", status, stamp(at), id); err != nil {
		return err
	}
	err := x.Refresh(ctx, id, path)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == fault.NotFound {
		return nil
	}
	return err
}

// change runs one statement that must meet one session.
func (x *Index) change(ctx context.Context, what, text string, args ...any) error {
	err := x.update(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, text, args...)
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fault.New(fault.NotFound, "there is no such session"), err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Forget drops the rows of sessions that ended before a time and whose record is gone.
func (x *Index) Forget(ctx context.Context, before time.Time) (int64, error) {
	var n int64
	err := x.update(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE status=? AND coalesce(stopped_at, created_at) < ?", Terminated, stamp(before))
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		n, err = done.RowsAffected()
		return err //nolint:wrapcheck // by the caller
	})
	if err != nil {
		return 0, fmt.Errorf("forget sessions: %w", err)
	}
	return n, nil
}

// Terminate notes that the record of a session was pruned.
func (x *Index) Terminate(ctx context.Context, id string) error {
	return x.change(ctx, "terminate session", "UPDATE sessions SET status=?, db_bytes=0 WHERE id=?", Terminated, id)
}
