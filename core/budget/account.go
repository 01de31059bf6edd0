package budget

import (
	"time"
)

// Account is what one VM spends from.
type Account struct {
	book *Book
	// scopes are those whose limits hold, the VM's own last; slots where their records were last.
	scopes []Scope
	slots  []int
}

// Account is that of a VM of a family, made of an image; the image may be empty.
func (b *Book) Account(family, image string) *Account {
	scopes := []Scope{{Kind: Install}}
	if image != "" {
		scopes = append(scopes, Scope{Image, shorten(image)})
	}
	scopes = append(scopes, Scope{VM, shorten(family)})
	return &Account{book: b, scopes: scopes, slots: make([]int, len(scopes))}
}

func shorten(s string) string { return s[:min(len(s), maxScope)] }

// load reads the records, in the order of the scopes, as of now.
func (a *Account) load(now time.Time) ([]*record, error) {
	recs := make([]*record, len(a.scopes))
	for i, s := range a.scopes {
		r, slot, err := a.book.find(s, a.slots[i])
		if err != nil {
			return nil, err
		}
		if r.turn(now) {
			// Written at once: of a new one the place is taken, and a day has begun also when what follows is refused.
			if err := a.book.write(slot, r); err != nil {
				return nil, err
			}
		}
		recs[i], a.slots[i] = r, slot
	}
	return recs, nil
}

func (a *Account) store(recs []*record) error {
	for i, r := range recs {
		if err := a.book.write(a.slots[i], r); err != nil {
			return err
		}
	}
	return nil
}

// counted is the record that has what counts against a limit of another.
func counted(recs []*record, i int, p Period) *record {
	if p == Session {
		return recs[len(recs)-1]
	}
	return recs[i]
}

// check says which limit does not allow so much more.
func check(recs []*record, more Amount) error {
	for i, r := range recs {
		for p := range periods {
			has := counted(recs, i, p)
			for m, limit := range r.limit[p] {
				used := has.used[p][m] + has.held[p][m]
				if limit != NoLimit && more[m] > 0 && used+more[m] > limit {
					return &Exceeded{Scope: r.scope, Period: p, Meter: Meter(m), Limit: limit, Used: used, Asked: more[m]}
				}
			}
		}
	}
	return nil
}

// Limited reports which meters have a limit for this VM.
func (a *Account) Limited() (limited [meters]bool, err error) {
	err = a.book.locked(func() error {
		recs, err := a.load(a.book.now().In(a.book.zone))
		for _, r := range recs {
			for p := range r.limit {
				for m, limit := range r.limit[p] {
					limited[m] = limited[m] || limit != NoLimit
				}
			}
		}
		return err
	})
	return limited, err
}

// Hold is what a request has taken and not settled. It is for one goroutine at a time.
type Hold struct {
	a       *Account
	amount  Amount
	days    []int32
	resets  []uint32
	settled bool
}

// Reserve takes what a request may need. The error is an *Exceeded when a limit does not allow it.
func (a *Account) Reserve(amount Amount) (*Hold, error) {
	h := &Hold{a: a, days: make([]int32, len(a.scopes)), resets: make([]uint32, len(a.scopes))}
	err := a.book.locked(func() error {
		recs, err := a.load(a.book.now().In(a.book.zone))
		if err != nil {
			return err
		}
		if err := check(recs, amount); err != nil {
			return err
		}
		for i, r := range recs {
			h.days[i], h.resets[i] = r.day, r.resets
			for p := range r.held {
				r.held[p] = r.held[p].plus(amount)
			}
		}
		return a.store(recs)
	})
	if err != nil {
		return nil, err
	}
	h.amount = amount
	return h, nil
}

// Extend takes more, all of it or nothing.
func (h *Hold) Extend(more Amount) error {
	return h.a.book.locked(func() error {
		recs, err := h.a.load(h.a.book.now().In(h.a.book.zone))
		if err != nil {
			return err
		}
		if err := check(recs, more); err != nil {
			return err
		}
		h.change(recs, more, false)
		h.amount = h.amount.plus(more)
		return h.a.store(recs)
	})
}

// change adds to what is held, or takes it back, where the hold still counts: not on another day, and not after the owner began anew.
func (h *Hold) change(recs []*record, by Amount, back bool) {
	for i, r := range recs {
		for p := range r.held {
			if r.resets != h.resets[i] || Period(p) == Day && r.day != h.days[i] {
				continue
			}
			for m := range by {
				n := by[m]
				if back {
					n = -n
				}
				r.held[p][m] = clamp(r.held[p][m] + n)
			}
		}
	}
}

// Amount is what is held.
func (h *Hold) Amount() Amount { return h.amount }

// Settle gives back what was taken and counts what was spent. It returns the warnings that are due. A second call does nothing.
func (h *Hold) Settle(spent Amount) (warnings []Warning, err error) {
	if h.settled {
		return nil, nil
	}
	h.settled = true
	err = h.a.book.locked(func() error {
		recs, err := h.a.load(h.a.book.now().In(h.a.book.zone))
		if err != nil {
			return err
		}
		h.change(recs, h.amount, true)
		for i, r := range recs {
			r.used[Session] = r.used[Session].plus(spent)
			if r.day == h.days[i] { // else it belongs to the day on which it began
				r.used[Day] = r.used[Day].plus(spent)
			}
		}
		warnings = warn(recs)
		return h.a.store(recs)
	})
	h.a.book.sync()
	return warnings, err
}

// warn notes which steps are passed for the first time.
func warn(recs []*record) []Warning {
	var out []Warning
	for i, r := range recs {
		for p := range periods {
			has := counted(recs, i, p)
			for m := range meters {
				limit := r.limit[p][m]
				if p == Session {
					if !tightest(recs, i, m) {
						continue
					}
				}
				if has.warnedFor[p][m] != limit {
					has.warnedFor[p][m], has.warned[p][m] = limit, 0
				}
				if now := step(has.used[p][m], limit); now > has.warned[p][m] {
					has.warned[p][m] = now
					out = append(out, Warning{Scope: r.scope, Period: p, Meter: m, Percent: steps[now-1], Limit: limit, Used: has.used[p][m]})
				}
			}
		}
	}
	return out
}

// tightest reports whether the limit for a session in record i is the one that is reached first.
func tightest(recs []*record, i int, m Meter) bool {
	limit := recs[i].limit[Session][m]
	if limit == NoLimit {
		return false
	}
	for j, r := range recs {
		if other := r.limit[Session][m]; other != NoLimit && (other < limit || other == limit && j > i) {
			return false
		}
	}
	return true
}
