package budget

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clock is a time that tests set.
type clock struct{ now time.Time }

func newBook(t *testing.T, zone *time.Location) (*Book, *clock) {
	t.Helper()
	b, err := Open(filepath.Join(t.TempDir(), "budgets"), zone)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{time.Date(2026, 3, 10, 12, 0, 0, 0, b.zone)}
	b.now = func() time.Time { return c.now }
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, c
}

func set(t *testing.T, b *Book, s Scope, p Period, m Meter, limit int64) {
	t.Helper()
	if err := b.Set(s, p, m, limit); err != nil {
		t.Fatal(err)
	}
}

// spend reserves and settles at once.
func spend(t *testing.T, a *Account, amount Amount) error {
	t.Helper()
	h, err := a.Reserve(amount)
	if err != nil {
		return err
	}
	_, err = h.Settle(amount)
	return err
}

func exceeded(err error) *Exceeded {
	e, _ := errors.AsType[*Exceeded](err)
	return e
}

var oneRequest = Amount{Requests: 1}

func TestTheFourthOfThreeRequestsIsRefused(t *testing.T) {
	for _, scope := range []Scope{{Kind: Install}, {Image, "work"}, {VM, "dev"}} {
		for _, p := range []Period{Session, Day} {
			t.Run(scope.Kind.String()+" "+p.String(), func(t *testing.T) {
				b, _ := newBook(t, time.UTC)
				set(t, b, scope, p, Requests, 3)
				a := b.Account("dev", "work")
				for range 3 {
					if err := spend(t, a, oneRequest); err != nil {
						t.Fatal(err)
					}
				}
				e := exceeded(spend(t, a, oneRequest))
				if e == nil || e.Meter != Requests || e.Limit != 3 || e.Used != 3 || e.Scope != scope || e.Period != p {
					t.Fatalf("%+v", e)
				}
				if !strings.Contains(e.Error(), "3 requests") {
					t.Error(e)
				}
			})
		}
	}
}

func TestWhoSharesALimit(t *testing.T) {
	for _, test := range []struct {
		name   string
		scope  Scope
		period Period
		shared bool // by a VM of the same image
		other  bool // by a VM of another image
	}{
		{"a session's of the installation", Scope{Kind: Install}, Session, false, false},
		{"a day's of the installation", Scope{Kind: Install}, Day, true, true},
		{"a session's of an image", Scope{Image, "work"}, Session, false, false},
		{"a day's of an image", Scope{Image, "work"}, Day, true, false},
		{"a day's of a VM", Scope{VM, "a"}, Day, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, _ := newBook(t, time.UTC)
			set(t, b, test.scope, test.period, Requests, 1)
			if err := spend(t, b.Account("a", "work"), oneRequest); err != nil {
				t.Fatal(err)
			}
			if err := spend(t, b.Account("a", "work"), oneRequest); exceeded(err) == nil {
				t.Errorf("a fork shares its parent's: %v", err)
			}
			if err := spend(t, b.Account("b", "work"), oneRequest); (exceeded(err) != nil) != test.shared {
				t.Errorf("of the same image: %v", err)
			}
			if err := spend(t, b.Account("c", ""), oneRequest); (exceeded(err) != nil) != test.other {
				t.Errorf("of another: %v", err)
			}
		})
	}
}

func TestWhatIsReservedCountsUntilItIsSettled(t *testing.T) {
	b, _ := newBook(t, time.UTC)
	set(t, b, Scope{VM, "a"}, Session, Money, 100)
	a := b.Account("a", "")
	h, err := a.Reserve(Amount{Money: 90})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Reserve(Amount{Money: 11}); exceeded(err) == nil {
		t.Fatal("two calls at once pass the limit together")
	}
	if err := h.Extend(Amount{Money: 11}); exceeded(err) == nil {
		t.Fatal("a call passes the limit by growing")
	}
	if err := h.Extend(Amount{Money: 10}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Settle(Amount{Money: 30}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Settle(Amount{Money: 30}); err != nil {
		t.Fatal("settled twice", err)
	}
	if err := spend(t, a, Amount{Money: 70}); err != nil {
		t.Fatal("what was not used comes back:", err)
	}
	if err := spend(t, a, Amount{Money: 1}); exceeded(err) == nil {
		t.Fatal("all is spent")
	}
	if err := spend(t, a, Amount{Tokens: 1 << 40}); err != nil {
		t.Fatal("another meter has no limit:", err)
	}
}

func TestWhatAKilledWorkerHadTakenIsSpentAndTheRestSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "budgets")
	first, err := Open(path, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	set(t, first, Scope{VM, "a"}, Session, Tokens, 100)
	if err := spend(t, first.Account("a", ""), Amount{Tokens: 40}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Account("a", "").Reserve(Amount{Tokens: 50}); err != nil {
		t.Fatal(err)
	}
	if err := first.file.Close(); err != nil { // as a kill does
		t.Fatal(err)
	}
	second, err := Open(path, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if e := exceeded(spend(t, second.Account("a", ""), Amount{Tokens: 11})); e == nil || e.Used != 90 {
		t.Fatalf("%+v", e)
	}
	if err := spend(t, second.Account("a", ""), Amount{Tokens: 10}); err != nil {
		t.Fatal(err)
	}
}

func TestDaysEndAtMidnightInTheOwnersZoneWhateverTheClockDoes(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, test := range []struct {
		name, spent, later string
		fresh              bool
	}{
		{"a minute before midnight", "2026-03-10T12:00:00+01:00", "2026-03-10T23:59:00+01:00", false},
		{"midnight there, not yet in UTC", "2026-03-10T12:00:00+01:00", "2026-03-10T23:00:00Z", true},
		{"the day of 23 hours ends at its midnight", "2026-03-29T00:30:00+01:00", "2026-03-29T23:30:00+02:00", false},
		{"and not an hour later", "2026-03-29T00:30:00+01:00", "2026-03-30T00:00:00+02:00", true},
		{"the day of 25 hours", "2026-10-25T00:30:00+02:00", "2026-10-25T23:30:00+01:00", false},
		{"the clock is put back over midnight", "2026-03-11T00:10:00+01:00", "2026-03-10T23:50:00+01:00", false},
		{"the clock was a year ahead", "2027-03-10T12:00:00+01:00", "2026-03-10T12:00:00+01:00", false},
		{"a year is left out", "2026-12-31T23:59:59+01:00", "2028-01-01T00:00:00+01:00", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, c := newBook(t, berlin)
			set(t, b, Scope{Kind: Install}, Day, Requests, 1)
			a := b.Account("a", "")
			c.now = at(test.spent)
			if err := spend(t, a, oneRequest); err != nil {
				t.Fatal(err)
			}
			c.now = at(test.later)
			if err := spend(t, a, oneRequest); (err == nil) != test.fresh {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAClockThatWasAheadDoesNotBlockTheDaysThatFollow(t *testing.T) {
	b, c := newBook(t, time.UTC)
	set(t, b, Scope{Kind: Install}, Day, Requests, 1)
	a := b.Account("a", "")
	right := c.now
	c.now = right.AddDate(1, 0, 0)
	if err := spend(t, a, oneRequest); err != nil {
		t.Fatal(err)
	}
	c.now = right
	if err := spend(t, a, oneRequest); exceeded(err) == nil {
		t.Fatal("what was spent today was forgotten")
	}
	c.now = right.AddDate(0, 0, 1)
	if err := spend(t, a, oneRequest); err != nil {
		t.Fatal(err)
	}
}

func TestACallOverMidnightBelongsToTheDayOnWhichItBegan(t *testing.T) {
	b, c := newBook(t, time.UTC)
	set(t, b, Scope{Kind: Install}, Day, Tokens, 100)
	a := b.Account("a", "")
	h, err := a.Reserve(Amount{Tokens: 90})
	if err != nil {
		t.Fatal(err)
	}
	c.now = c.now.AddDate(0, 0, 1)
	if err := spend(t, a, Amount{Tokens: 60}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Settle(Amount{Tokens: 80}); err != nil {
		t.Fatal(err)
	}
	if err := spend(t, a, Amount{Tokens: 41}); exceeded(err) == nil {
		t.Error("giving back yesterday's made room today")
	}
	if err := spend(t, a, Amount{Tokens: 40}); err != nil {
		t.Error(err)
	}
}

func TestTheOwnerBeginsAnew(t *testing.T) {
	b, _ := newBook(t, time.UTC)
	scope := Scope{VM, "a"}
	set(t, b, scope, Session, Requests, 2)
	a := b.Account("a", "")
	h, err := a.Reserve(Amount{Requests: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Reset(scope); err != nil {
		t.Fatal(err)
	}
	if err := spend(t, a, oneRequest); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Settle(Amount{Requests: 1}); err != nil {
		t.Fatal(err)
	}
	if e := exceeded(spend(t, a, oneRequest)); e == nil || e.Used != 2 {
		t.Fatalf("what was on its way counts when it ends, and gives back nothing: %+v", e)
	}
	set(t, b, scope, Session, Requests, NoLimit)
	if err := spend(t, a, oneRequest); err != nil {
		t.Fatal(err)
	}
}

func TestWarningsComeOnceEach(t *testing.T) {
	b, _ := newBook(t, time.UTC)
	set(t, b, Scope{Kind: Install}, Session, Tokens, 1000) // for each session, and looser than the VM's own
	set(t, b, Scope{VM, "a"}, Session, Tokens, 100)
	a := b.Account("a", "")
	var got []int
	for range 10 {
		h, err := a.Reserve(Amount{Tokens: 10})
		if err != nil {
			t.Fatal(err)
		}
		warnings, err := h.Settle(Amount{Tokens: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range warnings {
			if w.Scope != (Scope{VM, "a"}) || w.Meter != Tokens || w.Limit != 100 {
				t.Errorf("%+v", w)
			}
			got = append(got, w.Percent)
		}
	}
	if len(got) != 3 || got[0] != 50 || got[1] != 80 || got[2] != 100 {
		t.Fatalf("%v", got)
	}
	set(t, b, Scope{VM, "a"}, Session, Tokens, 120)
	h, err := a.Reserve(Amount{Tokens: 1})
	if err != nil {
		t.Fatal(err)
	}
	if warnings, err := h.Settle(Amount{Tokens: 1}); err != nil || len(warnings) != 1 || warnings[0].Percent != 80 {
		t.Errorf("another limit is warned of anew: %v %v", warnings, err)
	}
}

func TestADamagedFileRefusesAndSaysWhatToDo(t *testing.T) {
	for _, test := range []struct {
		name string
		harm func(f *os.File) error
	}{
		{"a byte of a record", func(f *os.File) error { _, err := f.WriteAt([]byte{0x55}, recordSize+200); return err }},
		{"half a record", func(f *os.File) error { return f.Truncate(recordSize + 100) }},
		{"the head", func(f *os.File) error { _, err := f.WriteAt([]byte("what"), 0); return err }},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "budgets")
			b, err := Open(path, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			set(t, b, Scope{Kind: Install}, Day, Requests, 5)
			if err := test.harm(b.file); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b, err = Open(path, time.UTC)
			if err == nil {
				err = spend(t, b.Account("a", ""), oneRequest)
				_ = b.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "damaged") || exceeded(err) != nil {
				t.Fatal(err)
			}
			if err := ResetAll(path); err != nil {
				t.Fatal(err)
			}
			b, err = Open(path, time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := spend(t, b.Account("a", ""), oneRequest); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLinesShowLimitsAndWhatIsUsed(t *testing.T) {
	b, _ := newBook(t, time.UTC)
	set(t, b, Scope{Kind: Install}, Day, Money, 5_000_000_000)
	if err := spend(t, b.Account("a", "work"), Amount{Money: 1_250_000_000, Requests: 1}); err != nil {
		t.Fatal(err)
	}
	lines, err := b.Lines()
	if err != nil || len(lines) == 0 || lines[0].Scope.Kind != Install || lines[0].Meter != Money || lines[0].Used != 1_250_000_000 || lines[0].Limit != 5_000_000_000 {
		t.Fatalf("%+v %v", lines, err)
	}
	if text := Money.Text(lines[0].Used); text != "$1.25" {
		t.Error(text)
	}
}

func TestOldRecordsOfVMsMakeRoom(t *testing.T) {
	b, c := newBook(t, time.UTC)
	for _, name := range []string{"a", "b", "kept"} {
		if err := spend(t, b.Account(name, ""), oneRequest); err != nil {
			t.Fatal(err)
		}
	}
	set(t, b, Scope{VM, "a"}, Session, Requests, 9) // has a limit: stays
	old := b.Account("b", "")
	c.now = c.now.Add(2 * staleAfter)
	if err := spend(t, b.Account("new", ""), oneRequest); err != nil {
		t.Fatal(err)
	}
	info, err := b.file.Stat()
	if err != nil || info.Size() != 5*recordSize {
		t.Fatal(info.Size(), err)
	}
	if err := spend(t, old, oneRequest); err != nil {
		t.Error("whose record was given away gets another:", err)
	}
}

func FuzzARecordIsReadOrRefused(f *testing.F) {
	var b [recordSize]byte
	newRecord(Scope{VM, "dev"}).encode(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, data []byte) {
		var r record
		if r.decode(data) != nil {
			return
		}
		var again [recordSize]byte
		r.encode(again[:])
		if !bytes.Equal(again[:2], data[:2]) {
			t.Error("a record changes by being read")
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	book, err := Open(filepath.Join(b.TempDir(), "budgets"), time.UTC)
	if err != nil {
		b.Fatal(err)
	}
	defer book.Close()
	if err := book.Set(Scope{Kind: Install}, Day, Money, most); err != nil {
		b.Fatal(err)
	}
	a := book.Account("a", "work")
	for b.Loop() {
		h, err := a.Reserve(Amount{Money: 5, Requests: 1})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := h.Settle(Amount{Money: 1, Requests: 1}); err != nil {
			b.Fatal(err)
		}
	}
}
