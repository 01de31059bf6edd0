package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
)

// groupRows are how many rows one statement writes: as many as fit, then fewer. The last must be 1.
var groupRows = []int{32, 8, 1}

// group writes rows of one table, many to a statement. It is for one goroutine, inside a transaction.
type group struct {
	name    string
	columns int
	stmts   [3]driver.StmtQueryContext
	// pending values, columns to a row; args is what the driver gets, numbered once.
	pending []any
	args    []driver.NamedValue
}

func newGroup(name string, columns int) *group {
	g := &group{name: name, columns: columns, args: make([]driver.NamedValue, groupRows[0]*columns)}
	for i := range g.args {
		g.args[i].Ordinal = i + 1
	}
	return g
}

// add takes a row and writes when there are enough.
func (g *group) add(ctx context.Context, conn driver.ConnPrepareContext, values ...any) error {
	if len(values) != g.columns {
		return fmt.Errorf("record row: table %s has %d columns, not %d", g.name, g.columns, len(values))
	}
	g.pending = append(g.pending, values...)
	if len(g.pending) == len(g.args) {
		return g.flush(ctx, conn)
	}
	return nil
}

// flush writes all there is.
func (g *group) flush(ctx context.Context, conn driver.ConnPrepareContext) error {
	rest := g.pending
	for i, rows := range groupRows {
		for n := rows * g.columns; len(rest) >= n; rest = rest[n:] {
			if err := g.write(ctx, conn, i, rest[:n]); err != nil {
				return fmt.Errorf("record rows in %s: %w", g.name, err)
			}
		}
	}
	g.reset()
	return nil
}

// reset forgets rows that were not written.
func (g *group) reset() {
	clear(g.pending)
	g.pending = g.pending[:0]
	for i := range g.args {
		g.args[i].Value = nil
	}
}

func (g *group) write(ctx context.Context, conn driver.ConnPrepareContext, size int, values []any) error {
	if g.stmts[size] == nil {
		row := "(?" + strings.Repeat(",?", g.columns-1) + ")"
		text := "INSERT INTO " + g.name + " VALUES " + row + strings.Repeat(","+row, groupRows[size]-1)
		stmt, err := conn.PrepareContext(ctx, text)
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		query, ok := stmt.(driver.StmtQueryContext)
		if !ok {
			return errors.Join(errors.New("the driver cannot do this"), stmt.Close())
		}
		g.stmts[size] = query
	}
	for i, v := range values {
		g.args[i].Value = v
	}
	// A query, not an exec: the driver then hands over all values in one call, which is much the faster way.
	rows, err := g.stmts[size].QueryContext(ctx, g.args[:len(values)])
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	if err = rows.Next(nil); errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

func (g *group) close() error {
	var failed []error
	for i, s := range g.stmts {
		if stmt, ok := s.(driver.Stmt); ok {
			failed = append(failed, stmt.Close())
		}
		g.stmts[i] = nil
	}
	return errors.Join(failed...)
}

// groups are the writers of all tables and of the chain.
type groups struct {
	rows  [tableCount]*group
	chain *group
}

func newGroups() *groups {
	g := &groups{chain: newGroup("chain", 4)}
	for i := range tables {
		g.rows[i] = newGroup(tables[i].name, 1+len(tables[i].columns))
	}
	return g
}

func (g *groups) all() []*group { return append(g.rows[:], g.chain) }

func (g *groups) close() error {
	var failed []error
	for _, one := range g.all() {
		failed = append(failed, one.close())
	}
	return errors.Join(failed...)
}

// transaction runs fill on the driver's own connection between BEGIN and COMMIT.
func (g *groups) transaction(ctx context.Context, conn *sql.Conn, fill func(driver.ConnPrepareContext) error) error {
	return conn.Raw(func(raw any) error { //nolint:wrapcheck // by the caller
		prepare, can := raw.(driver.ConnPrepareContext)
		exec, canExec := raw.(driver.ExecerContext)
		if !can || !canExec {
			return errors.New("the driver cannot do this")
		}
		if _, err := exec.ExecContext(ctx, "BEGIN IMMEDIATE", nil); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		err := fill(prepare)
		for _, one := range g.all() {
			if err == nil {
				err = one.flush(ctx, prepare)
			}
			one.reset()
		}
		if err == nil {
			_, err = exec.ExecContext(ctx, "COMMIT", nil)
		}
		if err != nil {
			// SQLite has rolled back by itself after some errors; then this one says so and means nothing.
			_, _ = exec.ExecContext(ctx, "ROLLBACK", nil)
		}
		return err //nolint:wrapcheck // by the caller
	})
}
