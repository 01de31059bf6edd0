package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

func TestFailuresRepeatWhatIsPlain(t *testing.T) {
	t.Parallel()
	long := slices.Concat(query(1, "a")[:headerSize], bytes.Repeat([]byte{1, 'x'}, 200))
	for name, c := range map[string]struct {
		query    []byte
		question int
	}{
		"plain":                     {query(1, "example"), 13},
		"root":                      {append(query(1, "")[:headerSize:headerSize], 0, 0, 1, 0, 1), 5},
		"with more behind":          {append(query(1, "a"), "additional"...), 7},
		"no question":               {append([]byte{0, 1, 1, 0}, make([]byte, 8)...), 0},
		"two questions":             {append([]byte{0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0}, "\x00\x00\x01\x00\x01"...), 0},
		"a reference":               {append(query(1, "a")[:headerSize:headerSize], 0xc0, 12, 0, 1, 0, 1), 0},
		"a label that is cut off":   {append(query(1, "a")[:headerSize:headerSize], 9, 'a'), 0},
		"no end":                    {append(query(1, "a")[:headerSize:headerSize], 1, 'a'), 0},
		"no type":                   {append(query(1, "a")[:headerSize:headerSize], 1, 'a', 0, 0), 0},
		"a name that is too long":   {append(long, 0, 0, 1, 0, 1), 0},
		"nothing behind the header": {query(1, "a")[:headerSize], 0},
	} {
		got := failure(c.query)
		if len(got) != headerSize+c.question || !bytes.Equal(got[headerSize:], c.query[headerSize:headerSize+c.question]) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		if got[0] != 0 || got[1] != 1 || got[2] != 0x81 || got[3] != 0x82 || (got[5] == 1) != (c.question > 0) {
			t.Errorf("%s: the header is %x", name, got[:headerSize])
		}
	}
	for name, q := range map[string][]byte{"short": query(1, "a")[:11], "nothing": nil, "an answer": {0, 1, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if got := failure(q); got != nil {
			t.Errorf("%s: answered by %q", name, got)
		}
	}
}

func FuzzFailure(f *testing.F) {
	f.Add(query(7, "example"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, q []byte) {
		got := failure(q)
		if got == nil {
			return
		}
		if len(got) > headerSize+260 || !bytes.Equal(got[:2], q[:2]) || got[2]&0x80 == 0 || got[3]&0xf != serverFailure {
			t.Errorf("%x", got)
		}
		if n := binary.BigEndian.Uint16(got[4:]); (n == 1) != (len(got) > headerSize) || n > 1 {
			t.Errorf("%d questions in %x", n, got)
		}
	})
}
