package match

import (
	"bytes"
	"sort"
)

// view is a text as a reader of some encoding sees it, and where in the text each byte of it comes from.
type view struct {
	text []byte
	runs []run
	// open is where an escape begins that the text breaks off in; else the length of the text.
	open int
}

// run is a part of a view that came from the text in one piece: byte for byte, or, with a width, one byte of an escape of that many.
type run struct{ at, raw, width int }

// specials are the bytes that build looks at: escapes, and for a packed view line ends.
var specials = [...]byte{'%', '\\', '\r', '\n'}

// stops finds the next special byte of a text again and again. Each is looked for on its own, which for texts that have few of them is much faster
// than looking at every byte.
type stops struct {
	raw  []byte
	kind int
	next [len(specials)]int
}

// stopsOf begins with a text; of a packed view line ends are special too.
func stopsOf(raw []byte, packed bool) stops {
	s := stops{raw: raw, kind: 2}
	if packed {
		s.kind = len(specials)
	}
	for i := range s.kind {
		s.next[i] = -1
	}
	return s
}

// from gives the first special byte at or after a place, or the end of the text. Places only go up.
func (s *stops) from(at int) int {
	first := len(s.raw)
	for i := range s.kind {
		if s.next[i] < at {
			s.next[i] = len(s.raw)
			if n := bytes.IndexByte(s.raw[at:], specials[i]); n >= 0 {
				s.next[i] = at + n
			}
		}
		first = min(first, s.next[i])
	}
	return first
}

// build makes a view of those parts of raw that have something special in them; what is between them is one byte that is in no pattern. Percent signs and backslashes are undone as URLs and JSON have them, and in a packed one line ends are left
// out, as base64 is written in mail, but for empty lines, which end it. What is no escape stands for itself.
func (v *view) build(raw []byte, packed bool, parts []part, between byte) {
	v.text, v.runs, v.open = v.text[:0], v.runs[:0], len(raw)
	special := stopsOf(raw, packed)
	from := 0
	for _, p := range parts {
		v.gap(from, p.from, between)
		v.add(raw, p, packed, &special)
		from = p.to
	}
	v.gap(from, len(raw), between)
}

// gap stands for what is left out.
func (v *view) gap(from, to int, between byte) {
	if from < to {
		v.runs = append(v.runs, run{len(v.text), from, to - from})
		v.text = append(v.text, between)
	}
}

// add adds a part of a text.
func (v *view) add(raw []byte, p part, packed bool, special *stops) {
	for i := p.from; i < p.to; {
		j := min(special.from(i), p.to)
		if j > i {
			v.runs = append(v.runs, run{len(v.text), i, 0})
			v.text = append(v.text, raw[i:j]...)
		}
		if j == p.to {
			return
		}
		if raw[j] == '\r' || raw[j] == '\n' {
			if i = j + 1; j > 0 && raw[j-1] == '\n' {
				v.runs = append(v.runs, run{len(v.text), j, 0})
				v.text = append(v.text, '\n')
			}
			continue
		}
		c, width := unescape(raw[j:])
		switch {
		case width == 0:
			v.open = j
			return
		case packed && (c == '\r' || c == '\n'):
		case width == 1:
			v.runs = append(v.runs, run{len(v.text), j, 0})
			v.text = append(v.text, raw[j])
		default:
			v.runs = append(v.runs, run{len(v.text), j, width})
			v.text = append(v.text, c)
		}
		i = j + width
	}
}

// unescape reads an escape at the begin of raw and says how many bytes it takes: 1 for what is none, 0 for one that raw breaks off in.
func unescape(raw []byte) (c byte, width int) {
	digits := 2
	from := 1
	if raw[0] == '\\' {
		if len(raw) == 1 {
			return 0, 0
		}
		switch raw[1] {
		case '"', '\\', '/':
			return raw[1], 2
		case 'n':
			return '\n', 2
		case 'r':
			return '\r', 2
		case 't':
			return '\t', 2
		case 'u':
			digits, from = 4, 2
		default:
			return raw[0], 1
		}
	}
	n := 0
	for i := from; i < from+digits; i++ {
		if i >= len(raw) {
			return 0, 0
		}
		d := digit(raw[i])
		if d < 0 {
			return raw[0], 1
		}
		n = n<<4 | d
	}
	if n > 0x7f && digits == 4 {
		return raw[0], 1 // no pattern has it: they are bytes
	}
	return byte(n), from + digits
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// from gives where the byte at a place of the view begins in the text.
func (v *view) from(at int) int {
	if at >= len(v.text) {
		return v.open
	}
	r := v.runOf(at)
	if r.width > 0 {
		return r.raw
	}
	return r.raw + at - r.at
}

// to gives where the byte at a place of the view ends in the text.
func (v *view) to(at int) int {
	r := v.runOf(at)
	if r.width > 0 {
		return r.raw + r.width
	}
	return r.raw + at - r.at + 1
}

func (v *view) runOf(at int) run {
	return v.runs[sort.Search(len(v.runs), func(i int) bool { return v.runs[i].at > at })-1]
}

// place gives the place in the view of what is at or after a place in the text.
func (v *view) place(raw int) int {
	i := sort.Search(len(v.runs), func(i int) bool { return v.runs[i].raw > raw }) - 1
	if i < 0 {
		return 0
	}
	r, end := v.runs[i], len(v.text)
	if i+1 < len(v.runs) {
		end = v.runs[i+1].at
	}
	if r.width > 0 && raw > r.raw {
		return end
	}
	return min(r.at+raw-r.raw, end)
}
