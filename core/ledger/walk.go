package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"capsem/core/fault"
	"capsem/core/store"
)

const (
	// walkRows is how many rows of each table are held at once, walkTools how many tools of one call are told.
	walkRows  = 64
	walkTools = 256
)

// Walk calls do with all events of some kinds (none is all) that are there when it begins, the oldest first. A call of a model has the tools that it
// asked for in the field tool_calls. It holds few rows at a time. An error of do ends it.
func Walk(ctx context.Context, path string, kinds []string, do func(Entry) error) error {
	return Follow(ctx, path, kinds, func() (bool, error) { return false, nil }, do)
}

// Follow does as Walk, and goes on: whenever next has returned true it tells what was added meanwhile, in about the order of time. next may wait.
func Follow(ctx context.Context, path string, kinds []string, next func() (bool, error), do func(Entry) error) error {
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	w := &walk{r: r, do: do}
	err = w.run(ctx, kinds)
	if err == nil {
		err = w.follow(ctx, next)
	}
	return w.close(path, err)
}

// Tail calls do with the events of some kinds that are behind those of from, which names by kind the last one that is known, and goes on with what is
// added whenever next has returned true. do gets some events at a time, in about the order of time, and when it has returned nil from has moved behind them.
func Tail(ctx context.Context, path string, kinds []string, from map[string]int64, next func() (bool, error), do func([]Entry) error) error {
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	w := &walk{r: r, from: from}
	var some []Entry
	w.do = func(e Entry) error {
		some = append(some, e)
		return nil
	}
	w.rest = func() error {
		if err := do(some); err != nil {
			return err
		}
		some = some[:0]
		return nil
	}
	if err = w.begin(ctx, kinds); err == nil {
		if err = w.added(ctx); err == nil {
			err = w.follow(ctx, next)
		}
	}
	return w.close(path, err)
}

// follow tells what is added, for as long as next says.
func (w *walk) follow(ctx context.Context, next func() (bool, error)) error {
	for {
		more, err := next()
		if err != nil {
			return &walkError{err}
		}
		if !more {
			return nil
		}
		if err := w.added(ctx); err != nil {
			return err
		}
	}
}

// close ends the walk. Errors of whom the events are told stay what they are.
func (w *walk) close(path string, err error) error {
	var own *walkError
	switch {
	case errors.As(err, &own):
		err = own.err
	case err != nil:
		err = fmt.Errorf("read record: %w", store.Explain(err, path))
	}
	return errors.Join(err, w.r.Close())
}

// walkError is an error of whom the events are told.
type walkError struct{ err error }

// Error is the error's text.
func (e *walkError) Error() string { return e.err.Error() }

type walk struct {
	r     *store.Reader
	do    func(Entry) error
	lanes []*lane
	// from and rest are Tail's: what is known by kind, and what is done with the rows of one round.
	from map[string]int64
	rest func() error
}

// lane is one table on the way through it.
type lane struct {
	table int
	// last is the highest row that is told, at where it has come to; done says that there is no more to fetch.
	last  int64
	at    place
	rows  []Entry
	ended bool
}

// begin finds the tables.
func (w *walk) begin(ctx context.Context, kinds []string) error {
	version, err := store.Version(ctx, w.r.DB())
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	known := Kinds()
	for _, k := range kinds {
		if !slices.Contains(known, k) {
			return &walkError{fault.New(fault.Invalid, "there is no kind of event %q", Clean(k, 100)).WithHint("one of: %s", strings.Join(known, ", "))}
		}
	}
	for i := range tables {
		if t := &tables[i]; t.timed() && t.since <= version && (len(kinds) == 0 || slices.Contains(kinds, t.kind)) {
			l := &lane{table: i, last: w.from[t.kind]}
			w.lanes = append(w.lanes, l)
			if w.from != nil {
				continue
			}
			if err := w.r.DB().QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM "+t.name).Scan(&l.last); err != nil {
				return err //nolint:wrapcheck // by the caller
			}
		}
	}
	return nil
}

func (w *walk) run(ctx context.Context, kinds []string) error {
	if err := w.begin(ctx, kinds); err != nil {
		return err
	}
	for {
		var next *lane
		for _, l := range w.lanes {
			if err := w.fill(ctx, l); err != nil {
				return err
			}
			if len(l.rows) > 0 && (next == nil || l.rows[0].Time < next.rows[0].Time) {
				next = l
			}
		}
		if next == nil {
			return nil
		}
		e := next.rows[0]
		next.rows = next.rows[1:]
		if err := w.tell(ctx, &e); err != nil {
			return err
		}
	}
}

func (w *walk) tell(ctx context.Context, e *Entry) error {
	if e.Kind == tables[modelTable].kind {
		if err := w.tools(ctx, e); err != nil {
			return err
		}
	}
	if err := w.do(*e); err != nil {
		return &walkError{err}
	}
	return nil
}

// added tells the rows that came since. A row is written at the end of what it is about, and has the time of its begin: so these are told
// apart by their ids.
func (w *walk) added(ctx context.Context) error {
	for {
		var some []Entry
		for _, l := range w.lanes {
			rows, err := w.read(ctx, l.table, " WHERE id > ? ORDER BY id LIMIT ?", l.last, walkRows)
			if err != nil {
				return err
			}
			for i := range rows {
				l.last = max(l.last, rows[i].ID)
			}
			some = append(some, rows...)
		}
		if len(some) == 0 {
			return nil
		}
		slices.SortStableFunc(some, func(a, b Entry) int { return strings.Compare(a.Time, b.Time) })
		for i := range some {
			if err := w.tell(ctx, &some[i]); err != nil {
				return err
			}
		}
		if w.rest == nil {
			continue
		}
		if err := w.rest(); err != nil {
			return &walkError{err}
		}
		for _, l := range w.lanes {
			w.from[tables[l.table].kind] = l.last
		}
	}
}

// fill fetches the next rows of a table when none are left.
func (w *walk) fill(ctx context.Context, l *lane) error {
	if len(l.rows) > 0 || l.ended {
		return nil
	}
	var err error
	l.rows, err = w.read(ctx, l.table, " WHERE (timestamp, id) > (?, ?) AND id <= ? ORDER BY timestamp, id LIMIT ?", l.at.time, l.at.id, l.last, walkRows)
	if l.ended = len(l.rows) < walkRows; len(l.rows) > 0 {
		end := &l.rows[len(l.rows)-1]
		l.at = place{time: end.Time, id: end.ID}
	}
	return err
}

// read reads rows of a table.
func (w *walk) read(ctx context.Context, table int, rest string, args ...any) ([]Entry, error) {
	t := &tables[table]
	rows, err := w.r.DB().QueryContext(ctx, "SELECT * FROM "+t.name+rest, args...)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	all, err := scanAll(rows, len(names))
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(all))
	for _, values := range all {
		e := Entry{Kind: t.kind, Fields: map[string]any{}}
		for i, v := range values {
			switch {
			case names[i] == "id":
				e.ID, _ = v.(int64)
			case names[i] == timestampColumn:
				e.Time, _ = v.(string)
			case v != nil:
				e.Fields[names[i]] = v
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// tools adds the tools that a call of a model asked for.
func (w *walk) tools(ctx context.Context, e *Entry) error {
	rows, err := w.r.DB().QueryContext(ctx, "SELECT call_id, tool_name, arguments, origin FROM tool_calls WHERE model_call_id = ? ORDER BY call_index LIMIT ?", e.ID, walkTools)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	var out []map[string]any
	for rows.Next() {
		var id, name, arguments, origin sql.NullString
		if err := rows.Scan(&id, &name, &arguments, &origin); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		one := map[string]any{}
		for key, v := range map[string]sql.NullString{"call_id": id, "tool_name": name, "arguments": arguments, "origin": origin} {
			if v.Valid {
				one[key] = v.String
			}
		}
		out = append(out, one)
	}
	if len(out) > 0 {
		e.Fields["tool_calls"] = out
	}
	return rows.Err() //nolint:wrapcheck // by the caller
}
