package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"capsem/core/store"
)

// checkChain walks the chain once, with a cursor on every table beside it. Rows of a table are chained in the order of their
// ids, so each cursor only goes forward and nothing is held in memory.
func (v *verifier) checkChain(ctx context.Context) (err error) {
	chainer, err := newChainer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.closeCursors()) }()
	if err := v.openCursors(ctx); err != nil {
		return err
	}
	rows, err := v.tx.QueryContext(ctx, "SELECT seq, table_name, row_id, hash FROM chain ORDER BY seq")
	if err != nil {
		return fmt.Errorf("read chain: %w", err)
	}
	defer rows.Close()
	at := link{hash: genesis(v.report.Session)}
	for rows.Next() {
		next, ok, err := v.scanLink(rows, at.seq)
		if err != nil {
			return err
		}
		v.gap(at.seq, next.seq)
		if ok {
			if err := v.checkLink(chainer, &at.hash, next); err != nil {
				return err
			}
		}
		at = next
		v.report.Rows++
		if err := v.heads.upTo(&at); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read chain: %w", err)
	}
	return v.checkEnd(&at)
}

// link is one row of the chain.
type link struct {
	seq   int64
	table int
	row   int64
	hash  Hash
}

func (v *verifier) scanLink(rows *sql.Rows, after int64) (link, bool, error) {
	var name, hash, row any
	next := link{seq: after + 1}
	if err := rows.Scan(&next.seq, &name, &row, &hash); err != nil {
		return next, false, fmt.Errorf("read chain: %w", err)
	}
	text, _ := name.(string)
	sum, _ := hash.([]byte)
	id, isInt := row.(int64)
	t, known := tableNamed(text)
	if !known || !isInt || len(sum) != hashSize {
		v.problem(Problem{Seq: next.seq, What: "changed", Detail: "the link itself was changed"})
		if len(sum) == hashSize {
			next.hash = Hash(sum)
		}
		return next, false, nil
	}
	next.table, next.row, next.hash = t, id, Hash(sum)
	return next, true, nil
}

func (v *verifier) gap(from, to int64) {
	switch {
	case to > from+1:
		v.problem(Problem{Seq: from + 1, What: "removed", Detail: fmt.Sprintf("%d links are missing", to-from-1)})
	case to < 1:
		v.problem(Problem{Seq: to, What: "added", Detail: "there is a link before the first"})
	}
}

// checkLink finds the row of a link and computes its hash again.
func (v *verifier) checkLink(chainer *chainer, prev *Hash, l link) error {
	c := v.tables[l.table]
	name := tables[l.table].name
	if l.row <= c.last {
		v.problem(Problem{Table: name, Row: l.row, Seq: l.seq, What: "reordered", Detail: "the row is linked twice or out of its order"})
		return nil
	}
	c.last = l.row
	for c.ok && c.id < l.row {
		v.problem(Problem{Table: name, Row: c.id, What: "added", Detail: "the row is not in the chain"})
		if err := c.next(); err != nil {
			return err
		}
	}
	if !c.ok || c.id > l.row {
		v.problem(Problem{Table: name, Row: l.row, Seq: l.seq, What: "removed", Detail: "the row is missing"})
		return nil
	}
	hash, err := chainer.next(prev, c.values)
	if err != nil {
		return err
	}
	if hash != l.hash {
		v.problem(Problem{Table: name, Row: l.row, Seq: l.seq, What: "changed", Detail: "the row, or the link before it, is not what was recorded"})
	}
	return c.next()
}

// checkEnd looks at what is left when the chain has ended.
func (v *verifier) checkEnd(end *link) error {
	for i, c := range v.tables {
		for c.ok {
			v.problem(Problem{Table: tables[i].name, Row: c.id, What: "added", Detail: "the row is not in the chain"})
			if err := c.next(); err != nil {
				return err
			}
		}
	}
	if err := v.heads.end(end); err != nil {
		return err
	}
	v.report.Heads, v.report.Signed = v.heads.count, v.heads.signed
	if v.want.Seq > 0 && !v.heads.anchored {
		v.problem(Problem{Seq: int64(v.want.Seq), What: "truncated", Detail: "the link that main.db remembers is missing or another"}) //nolint:gosec // a count
	}
	return nil
}

func (v *verifier) openCursors(ctx context.Context) error {
	version, err := store.Version(ctx, v.tx)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	for i := range tables {
		if tables[i].since > version {
			v.tables[i] = &cursor{} // a record of before there was such a table
			continue
		}
		c, err := openCursor(ctx, v.tx, &tables[i])
		if err != nil {
			return err
		}
		v.tables[i] = c
	}
	h, err := openHeads(ctx, v)
	v.heads = h
	return err
}

func (v *verifier) closeCursors() error {
	var failed []error
	for _, c := range v.tables {
		if c != nil && c.rows != nil {
			failed = append(failed, c.rows.Close())
		}
	}
	if v.heads != nil {
		failed = append(failed, v.heads.rows.Close())
	}
	return errors.Join(failed...)
}

// cursor reads one table in the order of its ids.
type cursor struct {
	name   string
	rows   *sql.Rows
	values []any
	into   []any
	ok     bool
	id     int64
	// last is the last id that the chain named.
	last int64
}

func openCursor(ctx context.Context, q store.Queryer, t *table) (*cursor, error) {
	rows, err := q.QueryContext(ctx, "SELECT * FROM "+t.name+" ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	// A record of an older version has fewer columns; that they are the right ones was checked before.
	names, err := rows.Columns()
	if err != nil {
		return nil, errors.Join(err, rows.Close())
	}
	c := &cursor{name: t.name, rows: rows, values: make([]any, idAt+len(names))}
	c.values[0] = t.name
	for i := idAt; i < len(c.values); i++ {
		c.into = append(c.into, &c.values[i])
	}
	err = c.next()
	return c, err
}

// next goes to the next row; ok is false after the last.
func (c *cursor) next() error {
	if c.ok = c.rows.Next(); !c.ok {
		return c.rows.Err() //nolint:wrapcheck // names the table
	}
	if err := c.rows.Scan(c.into...); err != nil {
		return fmt.Errorf("read %s: %w", c.name, err)
	}
	c.id, _ = c.values[idAt].(int64)
	return nil
}
