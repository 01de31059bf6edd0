//go:build cgo

package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// connect opens connections of one kind, each prepared by hook.
type connect struct {
	dsn    string
	driver *sqlite3.SQLiteDriver
}

// connector makes the connections to one file. guard, if any, ties each of them down before it is used.
func connector(dsn string, g *guard) driver.Connector {
	d := &sqlite3.SQLiteDriver{}
	if g != nil {
		d.ConnectHook = func(c *sqlite3.SQLiteConn) error { return tieDown(c, g) }
	}
	return connect{dsn, d}
}

func (c connect) Connect(context.Context) (driver.Conn, error) {
	return c.driver.Open(c.dsn) //nolint:wrapcheck // the caller says which database
}

func (c connect) Driver() driver.Driver { return c.driver }

// tieDown sets limits, then lets only statements through that read.
func tieDown(c *sqlite3.SQLiteConn, g *guard) error {
	if _, err := c.Exec("PRAGMA query_only=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA cache_size=-8192", nil); err != nil {
		return err //nolint:wrapcheck // the caller says which database
	}
	c.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, g.valueBytes)
	c.SetLimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, maxSQL)
	c.SetLimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
	c.SetLimit(sqlite3.SQLITE_LIMIT_COLUMN, maxColumns)
	c.SetLimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200)
	c.SetLimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
	if !g.authorize {
		return nil
	}
	c.RegisterAuthorizer(func(op int, arg1, arg2, _ string) int {
		if allowed(op, arg1, arg2) {
			return sqlite3.SQLITE_OK
		}
		return sqlite3.SQLITE_DENY
	})
	return nil
}

func allowed(op int, arg1, arg2 string) bool {
	switch op {
	case sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, opRecursive:
		return true
	case sqlite3.SQLITE_FUNCTION:
		return allowedFunction(arg2)
	case sqlite3.SQLITE_PRAGMA:
		return allowedPragma(arg1)
	}
	return false
}

// kindOf sorts errors of SQLite.
func kindOf(err error) kind {
	if errors.Is(err, context.DeadlineExceeded) {
		return interrupted
	}
	e, ok := errors.AsType[sqlite3.Error](err)
	if !ok {
		return other
	}
	if e.SystemErrno == syscall.ENOSPC || e.SystemErrno == syscall.EDQUOT {
		return full
	}
	switch e.Code {
	case sqlite3.ErrFull:
		return full
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return damaged
	case sqlite3.ErrInterrupt:
		return interrupted
	case sqlite3.ErrAuth, sqlite3.ErrReadonly:
		return refused
	}
	return other
}
