package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"capsem/core/fault"
)

const (
	// MaxRows and MaxTime bound what one ad-hoc query may return and take.
	MaxRows = 10_000
	// MaxTime is how long one ad-hoc query may run.
	MaxTime = 5 * time.Second
	// MaxResult bounds the bytes of one ad-hoc query's answer.
	MaxResult = 32 << 20
	// maxSQL, maxColumns and maxValue bound a statement, a row and one value of an ad-hoc query.
	maxSQL, maxColumns, maxValue = 64 << 10, 500, 4 << 20
	// trustedValue bounds a value that our own queries read.
	trustedValue = 64 << 20
)

// guard is how a reading connection is tied down.
type guard struct {
	// authorize refuses every statement that does more than read.
	authorize  bool
	valueBytes int
}

// Reader is a set of connections that cannot change the database.
type Reader struct {
	path string
	pool *sql.DB
}

// OpenReader opens an existing database for our own reading queries.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	return openReader(ctx, path, guard{valueBytes: trustedValue})
}

func openReader(ctx context.Context, path string, g guard) (*Reader, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "there is no record at %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open record: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "%s is not a file", path)
	}
	pool := sql.OpenDB(connector(dsn(path, "ro"), &g))
	pool.SetMaxOpenConns(2)
	if err := pool.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open record: %w", Explain(err, path)), pool.Close())
	}
	return &Reader{path, pool}, nil
}

// DB gives the connections.
func (r *Reader) DB() *sql.DB { return r.pool }

// Path is the name of the file.
func (r *Reader) Path() string { return r.path }

// Close closes all connections.
func (r *Reader) Close() error { return r.pool.Close() } //nolint:wrapcheck // nothing to add

// Result is the answer of an ad-hoc query. Values are nil, int64, float64, string and []byte.
type Result struct {
	// Columns are the names of the columns.
	Columns []string `json:"columns"`
	// Rows hold one value per column.
	Rows [][]any `json:"rows"`
	// Truncated says that there is more than the limits allow.
	Truncated bool `json:"truncated,omitempty"`
}

// Inspect runs one statement of a user's against the database at path. Anything but reading is refused, and time, rows and
// bytes are bounded.
func Inspect(ctx context.Context, path, query string) (Result, error) {
	return inspect(ctx, path, query, MaxTime)
}

func inspect(ctx context.Context, path, query string, limit time.Duration) (Result, error) {
	if err := checkStatement(query); err != nil {
		return Result{}, err
	}
	r, err := openReader(ctx, path, guard{authorize: true, valueBytes: maxValue})
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, context.DeadlineExceeded)
	defer cancel()
	out, err := collect(ctx, r.pool, query)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = explainQuery(err, path)
	}
	return out, errors.Join(err, r.Close())
}

func explainQuery(err error, path string) error {
	explained := Explain(err, path)
	if _, ok := errors.AsType[*fault.Error](explained); ok || errors.Is(err, context.Canceled) {
		return explained
	}
	return fault.New(fault.Invalid, "the query failed: %v", err)
}

// checkStatement gives a readable answer early; that nothing is written is held by the connection, not by this.
func checkStatement(query string) error {
	if len(query) > maxSQL {
		return fault.New(fault.TooLarge, "a query has at most %d bytes", maxSQL)
	}
	if strings.ContainsRune(query, 0) {
		return fault.New(fault.Invalid, "a query has no NUL byte")
	}
	word := strings.ToUpper(strings.TrimLeft(query, " \t\r\n;("))
	for _, start := range []string{"SELECT", "WITH", "EXPLAIN", "VALUES", "--", "/*"} {
		if strings.HasPrefix(word, start) {
			return nil
		}
	}
	return fault.New(fault.Forbidden, "only SELECT, WITH, VALUES and EXPLAIN are allowed here")
}

func collect(ctx context.Context, db *sql.DB, query string) (Result, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return Result{}, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	out := Result{Rows: [][]any{}}
	if out.Columns, err = rows.Columns(); err != nil {
		return Result{}, err //nolint:wrapcheck // by the caller
	}
	budget := MaxResult
	for rows.Next() {
		if len(out.Rows) == MaxRows || budget < 0 {
			out.Truncated = true
			return out, nil
		}
		values := make([]any, len(out.Columns))
		into := make([]any, len(values))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return Result{}, err //nolint:wrapcheck // by the caller
		}
		budget -= sizeOf(values)
		out.Rows = append(out.Rows, values)
	}
	return out, rows.Err() //nolint:wrapcheck // by the caller
}

func sizeOf(values []any) int {
	n := 32 * len(values)
	for _, v := range values {
		switch v := v.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		}
	}
	return n
}
