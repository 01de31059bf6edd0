package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"capsem/core/fault"
)

// Schema is a list of migrations: entry i brings a database from version i to i+1. Entries are only ever added.
type Schema []string

// versionTable records every migration that was done. The last one is the version.
const versionTable = `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)`

// Version reports which version a database has; 0 is one without any schema.
func Version(ctx context.Context, q Queryer) (int, error) {
	var tables, version int
	err := q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type='table' AND name='schema_version'").Scan(&tables)
	if err == nil && tables > 0 {
		err = q.QueryRowContext(ctx, "SELECT coalesce(max(version),0) FROM schema_version").Scan(&version)
	}
	if err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

// Queryer is what *sql.DB, *sql.Conn and *sql.Tx have in common for reading.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// migrate does what is missing, all of it in one transaction: a crash leaves the old version whole.
func migrate(ctx context.Context, conn *sql.Conn, schema Schema) error {
	version, err := Version(ctx, conn)
	if err != nil || version == len(schema) {
		return err
	}
	if version > len(schema) {
		return fault.New(fault.Conflict, "the database has schema %d, and this capsem knows %d", version, len(schema)).
			WithHint("use the newer capsem that wrote it")
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	if err := apply(ctx, tx, schema, version); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

func apply(ctx context.Context, tx *sql.Tx, schema Schema, from int) error {
	if _, err := tx.ExecContext(ctx, versionTable); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	for i := from; i < len(schema); i++ {
		if _, err := tx.ExecContext(ctx, schema[i]); err != nil {
			return fmt.Errorf("migrate database to version %d: %w", i+1, err)
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO schema_version VALUES (?,?)", i+1, time.Now().UTC().Format(time.RFC3339))
		if err != nil {
			return fmt.Errorf("migrate database to version %d: %w", i+1, err)
		}
	}
	return nil
}

// Objects lists what a schema of some version makes: "type name" to the SQL that made it. SQLite's own are left out.
func Objects(ctx context.Context, q Queryer) (map[string]string, error) {
	rows, err := q.QueryContext(ctx, "SELECT type||' '||name, coalesce(sql,'') FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' LIMIT 1000")
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		out[name] = text
	}
	return out, rows.Err() //nolint:wrapcheck // says what it did
}

// Expected is what Objects returns of an untouched database of that version.
func (s Schema) Expected(ctx context.Context, version int) (map[string]string, error) {
	if version < 0 || version > len(s) {
		return nil, fault.New(fault.Conflict, "schema %d is not known", version)
	}
	pool := sql.OpenDB(connector("file::memory:?cache=private", nil))
	pool.SetMaxOpenConns(1)
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make schema: %w", err), pool.Close())
	}
	out, err := func() (map[string]string, error) {
		if err := migrate(ctx, conn, s[:version]); err != nil {
			return nil, err
		}
		return Objects(ctx, conn)
	}()
	return out, errors.Join(err, conn.Close(), pool.Close())
}
