package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"capsem/core/fault"
	"capsem/core/store"
)

// maxProblems bounds how many problems a report lists; it counts them all.
const maxProblems = 100

// Problem is one thing that is wrong with a record.
type Problem struct {
	// Table and Row say which row, Seq its place in the chain; zero where that is not known.
	Table string `json:"table,omitempty"`
	Row   int64  `json:"row,omitempty"`
	// Seq is its place in the chain.
	Seq int64 `json:"seq,omitempty"`
	// What is wrong: "changed", "removed", "added", "reordered", "truncated", "head", "schema", "session", "file".
	What string `json:"what"`
	// Detail says it in words.
	Detail string `json:"detail"`
}

// String is the problem in one line.
func (p Problem) String() string {
	switch {
	case p.Table != "" && p.Seq > 0:
		return fmt.Sprintf("%s row %d (link %d): %s", p.Table, p.Row, p.Seq, p.Detail)
	case p.Table != "":
		return fmt.Sprintf("%s row %d: %s", p.Table, p.Row, p.Detail)
	case p.Seq > 0:
		return fmt.Sprintf("link %d: %s", p.Seq, p.Detail)
	}
	return p.Detail
}

// Report is what Verify found.
type Report struct {
	// Session is whose record it says it is.
	Session string `json:"session"`
	// Rows are linked, the first Signed of them under a good signature. The rest is not yet signed: after a crash that is a
	// few seconds' worth.
	Rows int64 `json:"rows"`
	// Signed is how many rows the last good head covers.
	Signed int64 `json:"signed"`
	// Heads were checked.
	Heads int `json:"heads"`
	// Lost events were counted by the writer when it could not keep them.
	Lost int64 `json:"lost"`
	// Problems are the first of those found; ProblemCount counts all.
	Problems []Problem `json:"problems"`
	// ProblemCount counts all problems.
	ProblemCount int `json:"problem_count"`
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return r.ProblemCount == 0 }

func (r *Report) add(p Problem) {
	if r.ProblemCount++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, p)
	}
}

// Expect is what is known of a record from elsewhere.
type Expect struct {
	// Key is the install's public key.
	Key ed25519.PublicKey
	// Session, if set, is whose record it must be.
	Session string
	// Seq and Hash, if set, are a link that it must have: the head that main.db remembers.
	Seq uint64
	// Hash is the link at Seq.
	Hash Hash
}

// Verify checks every row of the record at path against its chain, and the chain against its signed heads. An error means that
// it could not be checked; what is wrong with the record is in the report. Nothing is written.
func Verify(ctx context.Context, path string, want Expect) (Report, error) {
	if len(want.Key) != ed25519.PublicKeySize {
		return Report{}, fault.New(fault.Invalid, "a public key is needed to verify")
	}
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return Report{}, err //nolint:wrapcheck // says what it did
	}
	// One transaction: a record that is being written is seen as of one moment.
	tx, err := r.DB().BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return Report{}, errors.Join(store.Explain(err, path), r.Close())
	}
	v := &verifier{tx: tx, want: want, path: path, report: Report{Problems: []Problem{}}}
	if v.side, err = ReadHead(path); errors.Is(err, os.ErrNotExist) {
		err = nil
	} else if err != nil {
		v.report.add(Problem{What: "head", Detail: "the signed head beside the record cannot be read"})
		err = nil
	}
	if err == nil {
		err = v.run(ctx)
	}
	if err == nil {
		err = v.checkFile(ctx)
	}
	if store.Damaged(err) {
		v.report.add(Problem{What: "file", Detail: "the file is damaged: " + err.Error()})
		err = nil
	}
	return v.report, errors.Join(store.Explain(err, path), tx.Rollback(), r.Close())
}

type verifier struct {
	tx     *sql.Tx
	path   string
	want   Expect
	side   *Head
	report Report
	tables [tableCount]*cursor
	heads  *headCursor
}

func (v *verifier) run(ctx context.Context) error {
	ok, err := v.frame(ctx)
	if err != nil || !ok {
		return err
	}
	if err := v.checkChain(ctx); err != nil {
		return err
	}
	err = v.tx.QueryRowContext(ctx, "SELECT coalesce(sum(count),0) FROM drop_events WHERE typeof(count)='integer'").Scan(&v.report.Lost)
	if err != nil {
		return fmt.Errorf("verify record: %w", err)
	}
	return nil
}

// frame checks schema and session; without them the rows cannot be read.
func (v *verifier) frame(ctx context.Context) (bool, error) {
	version, err := store.Version(ctx, v.tx)
	if err != nil {
		return false, err //nolint:wrapcheck // says what it did
	}
	expected, err := schema.Expected(ctx, version)
	if err != nil {
		return false, err //nolint:wrapcheck // says what it did
	}
	have, err := store.Objects(ctx, v.tx)
	if err != nil {
		return false, err //nolint:wrapcheck // says what it did
	}
	if bad := differs(have, expected); bad != "" || version == 0 {
		v.report.add(Problem{What: "schema", Detail: "the tables are not those that capsem makes: " + bad})
		return false, nil
	}
	rows, err := readAll(ctx, v.tx, "SELECT session, format FROM ledger LIMIT 2")
	if err != nil {
		return false, fmt.Errorf("verify record: %w", err)
	}
	if len(rows) != 1 || rows[0][1] != int64(format) {
		v.report.add(Problem{What: "session", Detail: "the record does not say whose it is, or is of an unknown format"})
		return false, nil
	}
	v.report.Session, _ = rows[0][0].(string)
	if v.want.Session != "" && v.report.Session != v.want.Session {
		v.report.add(Problem{What: "session", Detail: fmt.Sprintf("this is the record of session %q, not %q", v.report.Session, v.want.Session)})
	}
	return true, nil
}

func differs(have, want map[string]string) string {
	for name, text := range want {
		if have[name] != text {
			return name + " is missing or changed"
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			return Clean(name, 200) + " is not ours"
		}
	}
	return ""
}
