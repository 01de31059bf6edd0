//go:build cgo

package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// Numbers of SQLite's C interface, fixed by its file sqlite3.h. The driver's own names for them have no value where the code is
// type-checked without a C compiler, as it is for macOS.
const (
	limitLength, limitSQL, limitColumns, limitDepth, limitAttached, limitWorkers = 0, 1, 2, 3, 7, 11

	answerOK, answerDeny = 0, 1

	opPragma, opRead, opSelect, opFunction, opRecursive = 19, 20, 21, 31, 33
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
	c.SetLimit(limitLength, g.valueBytes)
	c.SetLimit(limitSQL, maxSQL)
	c.SetLimit(limitAttached, 0)
	c.SetLimit(limitColumns, maxColumns)
	c.SetLimit(limitDepth, 200)
	c.SetLimit(limitWorkers, 0)
	if !g.authorize {
		return nil
	}
	c.RegisterAuthorizer(func(op int, arg1, arg2, _ string) int {
		if allowed(op, arg1, arg2) {
			return answerOK
		}
		return answerDeny
	})
	return nil
}

func allowed(op int, arg1, arg2 string) bool {
	switch op {
	case opSelect, opRead, opRecursive:
		return true
	case opFunction:
		return allowedFunction(arg2)
	case opPragma:
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

// allowedFunction refuses the functions that reach out of the database.
func allowedFunction(name string) bool {
	return !slices.Contains([]string{"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}, strings.ToLower(name))
}

// allowedPragma lets a user look at the schema.
func allowedPragma(name string) bool {
	return slices.Contains([]string{"table_info", "table_xinfo", "table_list", "index_list", "index_info"}, strings.ToLower(name))
}
