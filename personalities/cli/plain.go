package cli

import (
	"io"
	"unicode/utf8"
)

// guestText is stdout for what a command in a guest wrote: on a terminal as plain text.
func (s *session) guestText() io.Writer {
	if isTerminal(s.env.Stdout) {
		return &plainWriter{w: s.env.Stdout}
	}
	return s.env.Stdout
}

// plainWriter makes plain text of what was meant for a terminal, such as a guest's console: control sequences are left out whole,
// with their parameters, and so is every control character but newline and tab. Nothing in it can drive the user's terminal. A
// carriage return that no newline follows begins a new line: what would have been written over is kept. Text may come in pieces of
// any size.
type plainWriter struct {
	w io.Writer
	// state is within which kind of control sequence the text is; digits counts what is left of a fixed number of characters.
	state  plainState
	digits int
	// part is the beginning of a letter whose other bytes have not come yet.
	part []byte
	// returned says that a carriage return has come, column that something is on the line.
	returned, column bool
}

// plainState is where in a control sequence (ECMA-48) a text is.
type plainState int

const (
	inText plainState = iota
	// inEscape follows ESC; inShort an intermediate character after it; inCSI is a sequence with parameters.
	inEscape
	inShort
	inCSI
	// inOSC is the first character of an operating system command; inString that command, or another string, up to its end.
	inOSC
	inString
	// inPalette is Linux's own command without an end: seven digits.
	inPalette
)

const (
	escape       = 0x1b
	paletteWidth = 7
)

// Write writes what is text of p.
func (p *plainWriter) Write(data []byte) (int, error) {
	p.part = append(p.part, data...)
	out := make([]byte, 0, len(p.part))
	for len(p.part) > 0 && utf8.FullRune(p.part) {
		r, size := utf8.DecodeRune(p.part)
		p.part = p.part[size:]
		out = p.take(out, r)
	}
	p.part = append([]byte(nil), p.part...) // three bytes at most, and not the array behind them
	if len(out) == 0 {
		return len(data), nil
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err //nolint:wrapcheck // an io.Writer hands errors through
	}
	return len(data), nil
}

// take adds one character to the text, if it is one.
func (p *plainWriter) take(out []byte, r rune) []byte {
	if p.state == inText {
		return p.plain(out, r)
	}
	if r == escape {
		p.state = inEscape // also the end of a string, of which the backslash is the second half
		return out
	}
	if r < ' ' { // nothing goes on over a line's end: an unfinished sequence would swallow the rest of the log
		stays := p.state == inString && r != '\n' && r != '\r' && r != '\a' && r != 0x18 && r != 0x1a
		if !stays {
			p.state = inText
			return p.plain(out, r)
		}
		return out
	}
	p.state = p.next(r)
	return out
}

// next is the state after a character of a sequence.
func (p *plainWriter) next(r rune) plainState {
	switch p.state {
	case inEscape:
		return afterEscape(r)
	case inShort:
		if r <= 0x2f {
			return inShort
		}
	case inCSI:
		if r <= 0x3f {
			return inCSI
		}
	case inOSC:
		switch r {
		case 'R': // Linux: the palette as it was
			return inText
		case 'P':
			p.digits = paletteWidth
			return inPalette
		}
		return inString
	case inString:
		if r != 0x9c {
			return inString
		}
	case inPalette:
		if p.digits--; p.digits > 0 {
			return inPalette
		}
	case inText:
	}
	return inText
}

func afterEscape(r rune) plainState {
	switch {
	case r == '[':
		return inCSI
	case r == ']':
		return inOSC
	case r == 'P' || r == 'X' || r == '^' || r == '_':
		return inString
	case r <= 0x2f:
		return inShort
	}
	return inText
}

// plain is take outside of sequences.
func (p *plainWriter) plain(out []byte, r rune) []byte {
	switch {
	case r == escape:
		p.state = inEscape
	case r == 0x9b:
		p.state = inCSI
	case r == 0x9d:
		p.state = inOSC
	case r == 0x90 || r == 0x98 || r == 0x9e || r == 0x9f:
		p.state = inString
	case r == '\r':
		p.returned = true
	case r == '\n':
		p.returned, p.column = false, false
		return append(out, '\n')
	case r == '\t' || (r >= ' ' && r < 0x7f) || r >= 0xa0:
		if p.returned && p.column {
			out = append(out, '\n')
		}
		p.returned, p.column = false, true
		return utf8.AppendRune(out, r)
	}
	return out
}
