//go:build linux

package terminal

import (
	"strings"
	"testing"
)

func TestTheRingKeepsTheLastBytes(t *testing.T) {
	t.Parallel()
	for name, writes := range map[string][]string{
		"nothing": nil, "less": {"abc"}, "exactly": {"12345678"}, "exactly in two": {"1234", "5678"}, "over the end": {"123456", "789"},
		"more at once": {"123456789abcdef"}, "after a full one": {"123456789", "ab", "cdefgh"}, "empty ones": {"", "abcdefgh", "", "i"},
	} {
		r := newRing(8)
		for _, w := range writes {
			r.write([]byte(w))
		}
		all := strings.Join(writes, "")
		if want, got := all[max(0, len(all)-8):], string(r.snapshot()); got != want {
			t.Errorf("%s: kept %q, want %q", name, got, want)
		}
	}
}
