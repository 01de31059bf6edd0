package ledger

import "testing"

// A column that a later version adds must not change the links of the rows before it.
func TestColumnsAddedLaterKeepOldLinks(t *testing.T) {
	c, err := newChainer()
	check(t, err)
	prev := genesis(testSession)
	link := func(values ...any) Hash {
		h, err := c.next(&prev, values)
		check(t, err)
		return h
	}
	old := link("fs_events", int64(1), "2026", "created", nil)
	if link("fs_events", int64(1), "2026", "created", nil, nil, nil) != old {
		t.Error("absent columns at the end count")
	}
	others := []Hash{
		link("fs_events", int64(1), "2026", "created", ""), link("fs_events", int64(1), "2026", nil, "created"), link("fs_events", int64(2), "2026", "created", nil),
		link("dns_events", int64(1), "2026", "created", nil), link("fs_events", int64(1), "2026", []byte("created"), nil), link("fs_events", 1.0, "2026", "created", nil),
		link("fs_events", int64(1), "2026created"), link("fs_events", int64(1)), link(),
	}
	seen := map[Hash]bool{old: true}
	for i, h := range others {
		if seen[h] {
			t.Errorf("row %d has the link of another", i)
		}
		seen[h] = true
	}
	if other := genesis("x"); other == prev {
		t.Error("two sessions begin with the same link")
	}
}
