package ledger

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"capsem/core/fault"
)

// Retention says which records of destroyed VMs are kept. A zero limit does not limit.
type Retention struct {
	// Age is how long after its end a record is kept.
	Age time.Duration
	// Sessions is how many are kept, Bytes how much room they may take together.
	Sessions int
	// Bytes is how much room they may take together.
	Bytes int64
	// Terminated is how long the index remembers a session whose record is gone.
	Terminated time.Duration
}

// DefaultRetention is 30 days, 100 sessions, 100 GB, and a year in the index.
func DefaultRetention() Retention {
	return Retention{Age: 30 * 24 * time.Hour, Sessions: 100, Bytes: 100 << 30, Terminated: 365 * 24 * time.Hour}
}

// Pruned is one record that was removed.
type Pruned struct {
	// Session is whose it was, Bytes what it took.
	Session string
	// Bytes is what it took.
	Bytes int64
	// Why is "age", "sessions" or "bytes".
	Why string
}

// Sweep removes the records under dir that the limits do not keep: first those too old, then, until number and size fit, those
// without content, then the oldest. A session that runs is never touched, nor one that busy names, which it must do for every
// VM that still exists, nor anything else in dir.
func (x *Index) Sweep(ctx context.Context, dir string, r Retention, now time.Time, busy func(id string) bool) ([]Pruned, error) {
	found, err := candidates(dir)
	if found, err = x.prunable(ctx, found, busy, err); err != nil && found == nil {
		return nil, err
	}
	var out []Pruned
	failed := []error{err}
	for _, p := range choose(found, r, now) {
		if err := remove(dir, p.Session); err != nil {
			failed = append(failed, err)
			continue
		}
		out = append(out, p)
		if err := x.Terminate(ctx, p.Session); err != nil && !isNotFound(err) {
			failed = append(failed, err)
		}
	}
	if r.Terminated > 0 {
		_, err := x.Forget(ctx, now.Add(-r.Terminated))
		failed = append(failed, err)
	}
	return out, errors.Join(failed...)
}

func isNotFound(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Code == fault.NotFound
}

// prunable leaves out what is in use and asks the index for what the disk does not say.
func (x *Index) prunable(ctx context.Context, found []candidate, busy func(id string) bool, failed error) ([]candidate, error) {
	var out []candidate
	for _, c := range found {
		if busy != nil && busy(c.id) {
			continue
		}
		s, err := x.Session(ctx, c.id)
		switch {
		case isNotFound(err):
		case err != nil:
			failed = errors.Join(failed, err)
			continue
		case s.Status == Running:
			continue
		default:
			c.hollow = s.Totals.Rows == 0
			if !s.Stopped.IsZero() {
				c.ended = s.Stopped
			}
		}
		out = append(out, c)
	}
	return out, failed
}

// choose decides which records go.
func choose(found []candidate, r Retention, now time.Time) []Pruned {
	// What is most worth keeping comes first.
	slices.SortFunc(found, func(a, b candidate) int {
		if a.hollow != b.hollow {
			if a.hollow {
				return 1
			}
			return -1
		}
		return cmp.Or(b.ended.Compare(a.ended), cmp.Compare(a.id, b.id))
	})
	var out []Pruned
	kept, room := 0, int64(0)
	for _, c := range found {
		why := ""
		switch {
		case r.Age > 0 && now.Sub(c.ended) > r.Age:
			why = "age"
		case r.Sessions > 0 && kept >= r.Sessions:
			why = "sessions"
		case r.Bytes > 0 && room+c.bytes > r.Bytes:
			why = "bytes"
		}
		if why != "" {
			out = append(out, Pruned{c.id, c.bytes, why})
			continue
		}
		kept++
		room += c.bytes
	}
	return out
}
