// Package store opens the SQLite files of capsem, always in the same way: one writing connection with a write-ahead log that
// is folded back in when it is closed; readers that cannot change anything; and numbered migrations.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"capsem/core/fault"
)

const (
	// BusyTimeout is how long one statement waits for another connection's lock.
	BusyTimeout = 5 * time.Second
	// fileMode of a database: it holds what an agent did.
	fileMode = 0o600
	// openFlags: a link in the place of a database is not followed.
	openFlags = syscall.O_NOFOLLOW | syscall.O_CLOEXEC
)

// DB is one writing connection.
type DB struct {
	path string
	pool *sql.DB
	conn *sql.Conn
}

// Open opens a database for writing, makes it when it is not there, and brings its schema up to date.
func Open(ctx context.Context, path string, schema Schema) (*DB, error) {
	if err := create(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	pool := sql.OpenDB(connector(dsn(path, "rw"), nil))
	pool.SetMaxOpenConns(1)
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", Explain(err, path)), pool.Close())
	}
	db := &DB{path: path, pool: pool, conn: conn}
	if err := db.prepare(ctx, schema); err != nil {
		return nil, errors.Join(Explain(err, path), conn.Close(), pool.Close())
	}
	return db, nil
}

func (db *DB) prepare(ctx context.Context, schema Schema) error {
	for _, pragma := range []string{
		"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON", "PRAGMA trusted_schema=OFF",
		"PRAGMA cell_size_check=ON",
	} {
		if _, err := db.conn.ExecContext(ctx, pragma); err != nil {
			return fmt.Errorf("open database: %w", err)
		}
	}
	return migrate(ctx, db.conn, schema)
}

// create makes an empty file with the right mode, so that SQLite never makes one with the umask's.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openFlags, fileMode)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	return f.Close() //nolint:wrapcheck // by the caller
}

// dsn names a file for SQLite; whatever is in the path, it stays a path.
func dsn(path, mode string) string {
	u := url.URL{Scheme: "file", Path: path}
	if !filepath.IsAbs(path) {
		u = url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	}
	u.RawQuery = url.Values{"mode": {mode}, "_busy_timeout": {strconv.FormatInt(BusyTimeout.Milliseconds(), 10)}}.Encode()
	return u.String()
}

// Path is the name of the file.
func (db *DB) Path() string { return db.path }

// Conn is the connection. It is for one goroutine at a time.
func (db *DB) Conn() *sql.Conn { return db.conn }

// Update runs do in one transaction that is written when do returns nil.
func (db *DB) Update(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, err := db.conn.BeginTx(ctx, nil)
	if err != nil {
		return Explain(err, db.path)
	}
	if err := do(tx); err != nil {
		return errors.Join(Explain(err, db.path), ignoreDone(tx.Rollback()))
	}
	return Explain(tx.Commit(), db.path)
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// Close folds the write-ahead log into the file and closes it. Where no one else reads, one plain file is left.
func (db *DB) Close(ctx context.Context) error {
	var busy, frames, done int
	err := db.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &done)
	var mode string
	if err == nil && busy == 0 {
		// A reader at work makes this fail: then the log stays, empty, which is as good.
		_ = db.conn.QueryRowContext(ctx, "PRAGMA journal_mode=DELETE").Scan(&mode)
	}
	if err != nil {
		err = fmt.Errorf("close database: %w", Explain(err, db.path))
	}
	return errors.Join(err, db.conn.Close(), db.pool.Close())
}

// Explain gives the errors that a user can do something about their public text.
func Explain(err error, path string) error {
	switch kindOf(err) {
	case full:
		return fault.Wrap(err, fault.NoSpace, "no space left to write %s", path).WithHint("free some space on that disk and try again")
	case damaged:
		return fault.Wrap(err, fault.Internal, "%s is damaged or not a database", path).WithHint("move the file away to start a new one")
	case interrupted:
		return fault.Wrap(err, fault.Timeout, "the query took too long")
	case refused:
		return fault.Wrap(err, fault.Forbidden, "only reading is allowed here")
	case other:
	}
	return err
}

// Damaged reports whether an error says that a file is no sound database.
func Damaged(err error) bool { return kindOf(err) == damaged }

// kind is what an error of SQLite means to us.
type kind int

const (
	other kind = iota
	full
	damaged
	interrupted
	refused
)

// Fold puts what a crash left in the write-ahead log into the database, so that the one file is all of it. The schema is not touched.
func Fold(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); err != nil {
		return fmt.Errorf("fold database: %w", err)
	}
	pool := sql.OpenDB(connector(dsn(path, "rw"), nil))
	pool.SetMaxOpenConns(1)
	conn, err := pool.Conn(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("fold database: %w", Explain(err, path)), pool.Close())
	}
	return (&DB{path: path, pool: pool, conn: conn}).Close(ctx)
}
