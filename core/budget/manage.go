package budget

import (
	"slices"
	"strings"
)

// Line is one limit and what of it is used, for the owner.
type Line struct {
	Scope  Scope
	Period Period
	Meter  Meter
	// Limit may be NoLimit. Used is spent, Held taken by requests that have not ended (or whose worker was killed).
	Limit, Used, Held int64
}

// Set sets a limit; NoLimit removes it.
func (b *Book) Set(s Scope, p Period, m Meter, limit int64) error {
	s.Name = shorten(s.Name)
	err := b.locked(func() error {
		r, slot, err := b.find(s, 0)
		if err != nil {
			return err
		}
		r.turn(b.now().In(b.zone))
		r.limit[p][m] = max(min(limit, most), NoLimit)
		return b.write(slot, r)
	})
	if err == nil {
		err = b.file.Sync()
	}
	return err
}

// Reset forgets what a scope has used, in a session and today. Its limits stay.
func (b *Book) Reset(s Scope) error {
	s.Name = shorten(s.Name)
	return b.locked(func() error {
		r, slot, err := b.find(s, 0)
		if err != nil {
			return err
		}
		r.used, r.held, r.warned = [periods]Amount{}, [periods]Amount{}, [periods][meters]uint8{}
		r.resets++
		r.turn(b.now().In(b.zone))
		return b.write(slot, r)
	})
}

// ResetAll forgets everything, limits too: also what is damaged.
func ResetAll(path string) error {
	b, err := Open(path, nil)
	if err != nil { // its head is damaged
		if b, err = open(path); err != nil {
			return err
		}
	}
	err = b.locked(func() error {
		if err := b.file.Truncate(0); err != nil {
			return b.full(err)
		}
		return b.begin()
	})
	if closed := b.Close(); err == nil {
		err = closed
	}
	return err
}

// Lines lists every limit, and of each scope what it used. For the session limits of images and of the installation there is no number
// of what is used: each VM has its own.
func (b *Book) Lines() ([]Line, error) {
	var out []Line
	err := b.locked(func() error {
		return b.all(func(_ int, r *record) bool {
			r.turn(b.now().In(b.zone))
			for p := range periods {
				for m := range meters {
					l := Line{Scope: r.scope, Period: p, Meter: m, Limit: r.limit[p][m], Used: r.used[p][m], Held: r.held[p][m]}
					if p == Session && r.scope.Kind != VM {
						l.Used, l.Held = 0, 0
					}
					if l.Limit != NoLimit || l.Used > 0 || l.Held > 0 {
						out = append(out, l)
					}
				}
			}
			return true
		})
	})
	slices.SortStableFunc(out, func(a, b Line) int {
		if a.Scope.Kind != b.Scope.Kind {
			return int(a.Scope.Kind) - int(b.Scope.Kind)
		}
		return strings.Compare(a.Scope.Name, b.Scope.Name)
	})
	return out, err
}
