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
		v.problem(Problem{What: "head", Detail: "the signed head beside the record cannot be read"})
		err = nil
	}
	if err == nil {
		err = v.run(ctx)
	}
	if err == nil {
		err = v.checkFile(ctx)
	}
	if store.Damaged(err) {
		v.problem(Problem{What: "file", Detail: "the file is damaged: " + err.Error()})
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

// problem notes what is wrong.
func (v *verifier) problem(p Problem) {
	r := &v.report
	if r.ProblemCount++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, p)
	}
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
		v.problem(Problem{What: "schema", Detail: "the tables are not those that capsem makes: " + bad})
		return false, nil
	}
	rows, err := readAll(ctx, v.tx, "SELECT session, format FROM ledger LIMIT 2")
	if err != nil {
		return false, fmt.Errorf("verify record: %w", err)
	}
	if len(rows) != 1 || rows[0][1] != int64(format) {
		v.problem(Problem{What: "session", Detail: "the record does not say whose it is, or is of an unknown format"})
		return false, nil
	}
	v.report.Session, _ = rows[0][0].(string)
	if v.want.Session != "" && v.report.Session != v.want.Session {
		v.problem(Problem{What: "session", Detail: fmt.Sprintf("this is the record of session %q, not %q", v.report.Session, v.want.Session)})
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
