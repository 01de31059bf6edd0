package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/store"
)

// MaxPage bounds one page of History.
const MaxPage = 1000

// Filter says which events History returns. What is zero does not restrict.
type Filter struct {
	// Kinds are the tables to look into, by the names that Kinds returns; none is all.
	Kinds []string
	// Since and Until bound the time: from Since on, before Until.
	Since, Until time.Time
	// Search is a text that one of the telling columns contains, in any case.
	Search string
	// Decision is "allowed", "denied", "error"; kinds that decide nothing are left out.
	Decision string
	// After is the Next of the page before.
	After string
	// Limit is how many, at most MaxPage; 0 is 100.
	Limit int
}

// History lists events of all kinds in one order, newest first.
func History(ctx context.Context, path string, f Filter) (Page, error) {
	q, err := f.plan()
	if err != nil {
		return Page{}, err
	}
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return Page{}, err //nolint:wrapcheck // says what it did
	}
	p, err := q.run(ctx, r)
	if err != nil {
		err = fmt.Errorf("read history: %w", store.Explain(err, path))
	}
	return p, errors.Join(err, r.Close())
}

// place orders events: by time, then kind, then row. It is what Next says.
type place struct {
	time  string
	table int
	id    int64
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.time, q.time), cmp.Compare(p.table, q.table), cmp.Compare(p.id, q.id))
}

// plan is a filter that was checked.
type plan struct {
	Filter
	tables []int
	after  *place
}

func (f Filter) plan() (*plan, error) {
	q := &plan{Filter: f}
	if q.Limit == 0 {
		q.Limit = 100
	}
	if q.Limit < 0 || q.Limit > MaxPage {
		return nil, fault.New(fault.OutOfRange, "a page has 1 to %d entries", MaxPage)
	}
	if len(q.Search) > MaxText {
		return nil, fault.New(fault.TooLarge, "a search has at most %d bytes", MaxText)
	}
	known := Kinds()
	for _, k := range q.Kinds {
		if !slices.Contains(known, k) {
			return nil, fault.New(fault.Invalid, "there is no kind of event %q", Clean(k, 100)).WithHint("one of: %s", strings.Join(known, ", "))
		}
	}
	for i := range tables {
		t := &tables[i]
		if t.timed() && (len(q.Kinds) == 0 || slices.Contains(q.Kinds, t.kind)) && (q.Decision == "" || t.decision != "") {
			q.tables = append(q.tables, i)
		}
	}
	if q.After != "" {
		at, err := parsePlace(q.After)
		if err != nil {
			return nil, err
		}
		q.after = &at
	}
	return q, nil
}

func (p place) String() string {
	return p.time + "," + tables[p.table].kind + "," + strconv.FormatInt(p.id, 10)
}

func parsePlace(s string) (place, error) {
	bad := fault.New(fault.Invalid, "this is not where a page ended")
	parts := strings.Split(s, ",")
	if len(s) > 200 || len(parts) != 3 {
		return place{}, bad
	}
	if _, err := time.Parse(TimeFormat, parts[0]); err != nil {
		return place{}, bad
	}
	id, err := strconv.ParseInt(parts[2], 10, 64)
	for i := range tables {
		if err == nil && tables[i].kind == parts[1] {
			return place{parts[0], i, id}, nil
		}
	}
	return place{}, bad
}

// run asks each table for a page's worth, and takes the newest of all.
func (q *plan) run(ctx context.Context, r *store.Reader) (Page, error) {
	version, err := store.Version(ctx, r.DB())
	if err != nil {
		return Page{}, err //nolint:wrapcheck // by the caller
	}
	var found []place
	for _, t := range q.tables {
		if tables[t].since > version {
			continue // a record of before there was such a table
		}
		some, err := q.places(ctx, r, t)
		if err != nil {
			return Page{}, err
		}
		found = append(found, some...)
	}
	slices.SortFunc(found, func(a, b place) int { return b.compare(a) })
	out := Page{Entries: []Entry{}}
	for i, at := range found {
		if i == q.Limit {
			out.Next = found[i-1].String()
			break
		}
		e, err := readEntry(ctx, r, at)
		if err != nil {
			return Page{}, err
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// places finds the newest rows of a table that fit, one more than a page has.
func (q *plan) places(ctx context.Context, r *store.Reader, t int) ([]place, error) {
	where, args := q.where(t)
	text := "SELECT timestamp, id FROM " + tables[t].name + where + " ORDER BY timestamp DESC, id DESC LIMIT " + strconv.Itoa(q.Limit+1)
	rows, err := r.DB().QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	var out []place
	for rows.Next() {
		at := place{table: t}
		if err := rows.Scan(&at.time, &at.id); err != nil {
			return nil, err //nolint:wrapcheck // by the caller
		}
		out = append(out, at)
	}
	return out, rows.Err() //nolint:wrapcheck // by the caller
}

func (q *plan) where(t int) (string, []any) {
	var parts []string
	var args []any
	add := func(part string, values ...any) {
		parts = append(parts, part)
		args = append(args, values...)
	}
	if !q.Since.IsZero() {
		add("timestamp >= ?", stamp(q.Since))
	}
	if !q.Until.IsZero() {
		add("timestamp < ?", stamp(q.Until))
	}
	if q.Decision != "" {
		add(tables[t].decision+" = ?", q.Decision)
	}
	if q.Search != "" {
		var likes []string
		for _, column := range tables[t].search {
			likes = append(likes, column+` LIKE ? ESCAPE '\'`)
			args = append(args, "%"+strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(q.Search)+"%")
		}
		parts = append(parts, "("+strings.Join(likes, " OR ")+")")
	}
	if a := q.after; a != nil {
		switch cmp.Compare(t, a.table) {
		case -1:
			add("timestamp <= ?", a.time)
		case 0:
			add("(timestamp, id) < (?, ?)", a.time, a.id)
		case 1:
			add("timestamp < ?", a.time)
		}
	}
	if len(parts) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(parts, " AND "), args
}

// readEntry reads all columns there are: a record of an older version has fewer.
func readEntry(ctx context.Context, r *store.Reader, at place) (Entry, error) {
	t := &tables[at.table]
	rows, err := r.DB().QueryContext(ctx, "SELECT * FROM "+t.name+" WHERE id=?", at.id)
	if err != nil {
		return Entry{}, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return Entry{}, err //nolint:wrapcheck // by the caller
	}
	e := Entry{Kind: t.kind, ID: at.id, Time: at.time, Fields: map[string]any{}}
	all, err := scanAll(rows, len(names))
	if err != nil || len(all) == 0 {
		return e, err
	}
	for i, v := range all[0] {
		if v != nil && names[i] != "id" && names[i] != timestampColumn {
			e.Fields[names[i]] = v
		}
	}
	return e, nil
}
