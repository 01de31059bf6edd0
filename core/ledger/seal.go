package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"capsem/core/fault"
	"capsem/core/store"
)

// format is the version of how rows are chained.
const format = 1

// tuning of the writing connection. The loop tries again by itself, so a long wait in a statement would only make Close late.
// The log is folded back less often than by default: rows for many domains touch many pages of an index, each of which is then
// copied once for many transactions (measured: twice the rate). 16 MB of cache hold those pages.
const tuning = "PRAGMA busy_timeout=200; PRAGMA wal_autocheckpoint=8000; PRAGMA journal_size_limit=8388608; PRAGMA cache_size=-16000"

// ErrTampered is a record that was changed behind the writer's back. SetAside makes way for a new one.
var ErrTampered = errors.New("the record does not fit its signed head")

// keepSigned signs when it is time.
func (l *loop) keepSigned(ctx context.Context) {
	if l.retry > 0 {
		return
	}
	err := l.sign(ctx)
	if err != nil && !l.unsigned {
		l.w.opts.Log.Error("the record cannot be signed", "err", err)
	}
	l.unsigned = err != nil
}

// sign writes a signed head when there are rows after the last one: into the database, durably, and then beside it. In this
// order the side file is never ahead of the database, whatever crashes.
func (l *loop) sign(ctx context.Context) error {
	if l.pos.seq > l.head.Seq {
		next := Head{Session: l.w.opts.Session, Number: l.head.Number + 1, Seq: l.pos.seq, Hash: l.pos.hash}
		if err := next.sign(headContext, l.w.opts.Key, time.Now()); err != nil {
			return err
		}
		if err := l.insertHead(ctx, &next); err != nil {
			return fmt.Errorf("sign record: %w", store.Explain(err, l.db.Path()))
		}
		l.head, l.sideStale = next, true
	}
	if !l.sideStale {
		return nil
	}
	if err := writeSigned(headPath(l.db.Path()), &l.head); err != nil {
		return fmt.Errorf("sign record: %w", err)
	}
	l.sideStale = false
	return nil
}

// insertHead commits with a sync, which makes all rows before it durable too.
func (l *loop) insertHead(ctx context.Context, h *Head) error {
	conn := l.db.Conn()
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous=FULL"); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	_, err := conn.ExecContext(ctx, "INSERT INTO heads VALUES (?,?,?,?,?)", int64(h.Number), int64(h.Seq), h.Hash[:], h.Time, h.Signature) //nolint:gosec // counts
	_, back := conn.ExecContext(ctx, "PRAGMA synchronous=NORMAL")
	return errors.Join(err, back)
}

// load finds where the chain stands, and refuses a record that its last signed head does not fit.
func (l *loop) load(ctx context.Context, opts *Options) error {
	if err := l.claim(ctx, opts.Session); err != nil {
		return err
	}
	conn := l.db.Conn()
	if _, err := conn.ExecContext(ctx, tuning); err != nil {
		return store.Explain(err, l.db.Path())
	}
	l.pos.hash = genesis(opts.Session)
	var hash []byte
	err := conn.QueryRowContext(ctx, "SELECT seq, hash FROM chain ORDER BY seq DESC LIMIT 1").Scan(&l.pos.seq, &hash)
	switch {
	case err == nil && len(hash) == hashSize:
		l.pos.hash = Hash(hash)
	case err == nil:
		return fault.Wrap(ErrTampered, fault.Conflict, "the last link of the chain is damaged")
	case !errors.Is(err, sql.ErrNoRows):
		return store.Explain(err, l.db.Path())
	}
	for i := range tables {
		query := "SELECT coalesce(max(id),0) FROM " + tables[i].name
		if err := conn.QueryRowContext(ctx, query).Scan(&l.pos.ids[i]); err != nil {
			return store.Explain(err, l.db.Path())
		}
	}
	if err := conn.QueryRowContext(ctx, "SELECT coalesce(max(stop_fs_event_id),0) FROM snapshot_events").Scan(&l.pos.files); err != nil {
		return store.Explain(err, l.db.Path())
	}
	return l.loadHead(ctx, opts)
}

// claim makes a new database the session's, and refuses another session's.
func (l *loop) claim(ctx context.Context, session string) error {
	var have string
	var version int
	err := l.db.Conn().QueryRowContext(ctx, "SELECT session, format FROM ledger").Scan(&have, &version)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = l.db.Conn().ExecContext(ctx, "INSERT INTO ledger VALUES (?,?,?)", session, stamp(time.Now()), format)
		return store.Explain(err, l.db.Path())
	}
	if err != nil {
		return store.Explain(err, l.db.Path())
	}
	if have != session || version != format {
		return fault.New(fault.Conflict, "the record belongs to session %q, not %q", have, session)
	}
	return nil
}

// loadHead checks the last signed head against the chain and the side file.
func (l *loop) loadHead(ctx context.Context, opts *Options) error {
	public, _ := opts.Key.Public().(ed25519.PublicKey)
	side, err := ReadHead(l.db.Path())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return tampered("the signed head beside it cannot be read: %v", err)
	}
	h, err := lastHead(ctx, l.db.Conn(), opts.Session)
	if err != nil {
		return store.Explain(err, l.db.Path())
	}
	if side != nil && (h == nil || side.Number > h.Number) {
		return tampered("rows that were signed are missing")
	}
	if h == nil {
		return nil
	}
	if !h.Verify(public) {
		return tampered("the last head was not signed by this install")
	}
	var hash []byte
	err = l.db.Conn().QueryRowContext(ctx, "SELECT hash FROM chain WHERE seq=?", int64(h.Seq)).Scan(&hash) //nolint:gosec // a count
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return store.Explain(err, l.db.Path())
	}
	if !bytes.Equal(hash, h.Hash[:]) {
		return tampered("row %d is not the one that was signed", h.Seq)
	}
	l.head, l.sideStale = *h, side == nil || side.Number < h.Number
	return nil
}

func tampered(format string, args ...any) error {
	return fault.Wrap(ErrTampered, fault.Conflict, format, args...).WithHint("run capsem verify; the file can be set aside to start a new one")
}

// lastHead reads the newest head of a database, nil if there is none.
func lastHead(ctx context.Context, q store.Queryer, session string) (*Head, error) {
	rows, err := q.QueryContext(ctx, "SELECT "+headColumns+" FROM heads ORDER BY number DESC LIMIT 1")
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err() //nolint:wrapcheck // by the caller
	}
	h, err := scanHead(rows, session)
	if err != nil {
		return nil, tampered("the last head is damaged: %v", err)
	}
	return h, rows.Err() //nolint:wrapcheck // by the caller
}

const headColumns = "number, seq, hash, timestamp, signature"

// scanHead reads one row of heads, whatever is in it.
func scanHead(rows *sql.Rows, session string) (*Head, error) {
	h := Head{Session: session}
	var hash []byte
	if err := rows.Scan(&h.Number, &h.Seq, &hash, &h.Time, &h.Signature); err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	if len(hash) != hashSize {
		return nil, errBadHead
	}
	h.Hash = Hash(hash)
	return &h, nil
}
