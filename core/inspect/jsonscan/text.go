package jsonscan

import (
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// escape is how far an escape in a text has been read.
type escape struct {
	on bool
	// digits of \u are still to come; code is what they gave so far.
	digits int
	code   rune
	// high is the first half of a pair, waiting for the second.
	high rune
}

func (e *escape) begin() { e.on, e.digits, e.code = true, 0, 0 }

func (e *escape) active() bool { return e.on }

// escaped reads one byte of an escape.
func (s *Scanner) escaped(p []byte) []byte {
	c := p[0]
	if s.esc.digits > 0 {
		s.hexDigit(c)
		return p[1:]
	}
	s.esc.on = false
	if c == 'u' {
		s.esc.on, s.esc.digits = true, 4
		return p[1:]
	}
	s.flushSurrogate()
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	default:
		s.fail(ErrSyntax)
		return p
	}
	s.keep([]byte{c})
	return p[1:]
}

func (s *Scanner) hexDigit(c byte) {
	d := rune(0)
	switch {
	case c >= '0' && c <= '9':
		d = rune(c - '0')
	case c >= 'a' && c <= 'f':
		d = rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		d = rune(c-'A') + 10
	default:
		s.fail(ErrSyntax)
		return
	}
	s.esc.code = s.esc.code<<4 | d
	if s.esc.digits--; s.esc.digits > 0 {
		return
	}
	s.esc.on = false
	code := s.esc.code
	if high := s.esc.high; high != 0 {
		if r := utf16.DecodeRune(high, code); r != utf8.RuneError {
			s.esc.high = 0
			s.keepRune(r)
			return
		}
		s.flushSurrogate()
	}
	if code >= 0xd800 && code < 0xdc00 {
		s.esc.high = code
		return
	}
	s.keepRune(code) // half a pair becomes the replacement character
}

// flushSurrogate puts the replacement character where a pair has no second half.
func (s *Scanner) flushSurrogate() {
	if s.esc.high != 0 {
		s.esc.high = 0
		s.keepRune(utf8.RuneError)
	}
}

func (s *Scanner) keepRune(r rune) {
	var b [utf8.UTFMax]byte
	s.keep(b[:utf8.EncodeRune(b[:], r)])
}

// isNumber holds a word to the grammar of JSON.
func isNumber(b []byte) bool {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	n := digits(b)
	if n == 0 || n > 1 && b[0] == '0' {
		return false
	}
	if b = b[n:]; len(b) > 0 && b[0] == '.' {
		if n = digits(b[1:]); n == 0 {
			return false
		}
		b = b[1+n:]
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if n = digits(b); n == 0 {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

func digits(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return n
}

// Int is a number that is whole, however it is written. ok is false for any other value.
func (v Value) Int() (n int64, ok bool) {
	if v.Kind != Number {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(v.Text), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(v.Text), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// Bool is whether the value is true.
func (v Value) Bool() bool { return v.Kind == Bool && v.Text[0] == 't' }
