package mitm

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// protocol is what a client speaks.
type protocol uint8

const (
	// speaksUnknown cannot be told from the bytes so far.
	speaksUnknown protocol = iota
	speaksTLS
	speaksHTTP1
	speaksHTTP2
	speaksOther
	speaksNothing
)

// maxPeek is how much is read ahead: the longest TLS handshake message of a client that is accepted, or request line of a method that is not
// a known one.
const maxPeek = 64 << 10

// maxLine bounds the request line of an unknown method.
const maxLine = 4 << 10

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// methods are those after which nothing but HTTP is expected.
var methods = []string{
	"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "PATCH ", "OPTIONS ", "CONNECT ", "TRACE ", "PROPFIND ", "PROPPATCH ", "MKCOL ", "COPY ", "MOVE ",
	"LOCK ", "UNLOCK ", "REPORT ", "SEARCH ", "PURGE ", "QUERY ",
}

// classify says what the first bytes of a connection are.
func classify(b []byte) protocol {
	switch {
	case len(b) == 0:
		return speaksUnknown
	case b[0] == 0x16: // a TLS handshake record, whose version begins with 3
		if len(b) == 1 {
			return speaksUnknown
		}
		if b[1] == 3 {
			return speaksTLS
		}
		return speaksOther
	case begins(b, preface):
		if len(b) < len(preface) {
			return speaksUnknown
		}
		return speaksHTTP2
	}
	for _, m := range methods {
		if len(b) >= len(m) && string(b[:len(m)]) == m {
			return speaksHTTP1
		}
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	if len(line) > maxLine || !mayBeLine(line) {
		return speaksOther
	}
	if whole {
		return requestLine(strings.TrimSuffix(string(line), "\r"))
	}
	return speaksUnknown
}

// begins reports whether one of two is the beginning of the other.
func begins(b []byte, text string) bool {
	n := min(len(b), len(text))
	return string(b[:n]) == text[:n]
}

// requestLine tells a request line of an unknown method from other text.
func requestLine(line string) protocol {
	method, rest, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if ok && ok2 && method != "" && target != "" && strings.HasPrefix(version, "HTTP/1.") {
		return speaksHTTP1
	}
	return speaksOther
}

// mayBeLine reports whether bytes without a line's end could become a request line: a word of letters, then printable text.
func mayBeLine(b []byte) bool {
	for i, c := range b {
		if c < ' ' && c != '\r' || c >= 0x7f || i == 0 && (c < 'A' || c > 'z') {
			return false
		}
	}
	return true
}

// sniff reads ahead until it is clear what the client speaks. Where raw TCP is open too, one that says nothing for a while is taken for one
// that waits for the server.
func (c *conn) sniff(raw bool) protocol {
	wait := c.s.limits.FirstBytes
	if raw {
		wait = c.s.limits.Quiet
	}
	defer c.in.SetReadDeadline(time.Time{}) //nolint:errcheck // a connection that is over says so when it is read
	_ = c.in.SetReadDeadline(time.Now().Add(wait))
	for {
		if p := classify(c.in.ahead()); p != speaksUnknown {
			return p
		}
		err := c.in.more()
		switch {
		case err == nil:
		case len(c.in.ahead()) > 0, raw && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)):
			return speaksOther
		default:
			return speaksNothing
		}
	}
}

// peeked is a connection that can be read ahead of its reader.
type peeked struct {
	net.Conn
	buf []byte
	// hold says that what is read is kept as well, in kept, as far as maxPeek; mute that writes go nowhere.
	hold, mute bool
	kept       []byte
	// name is what the certificate is to be for.
	name string
}

func newPeeked(c net.Conn) *peeked { return &peeked{Conn: c} }

var errPeek = errors.New("too much before it is clear what it is")

// ahead is what has been read ahead.
func (p *peeked) ahead() []byte { return p.buf }

// more reads more ahead.
func (p *peeked) more() error {
	if len(p.buf) >= maxPeek {
		return errPeek
	}
	chunk := make([]byte, 4<<10)
	n, err := p.Conn.Read(chunk)
	p.buf = append(p.buf, chunk[:n]...)
	if n > 0 {
		return nil
	}
	return plainTimeout(err)
}

// plainTimeout gives a timeout as net/http and crypto/tls know it: they look at the error itself, not into it. Without this a reader that was
// only interrupted would be taken for broken.
func plainTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// Read reads what was read ahead first.
func (p *peeked) Read(b []byte) (n int, err error) {
	if len(p.buf) > 0 {
		n = copy(b, p.buf)
		if p.buf = p.buf[n:]; len(p.buf) == 0 {
			p.buf = nil
		}
	} else {
		n, err = p.Conn.Read(b)
	}
	if p.hold {
		if len(p.kept)+n > maxPeek {
			return 0, errPeek
		}
		p.kept = append(p.kept, b[:n]...)
	}
	return n, plainTimeout(err)
}

// Write writes, unless the connection is mute.
func (p *peeked) Write(b []byte) (int, error) {
	if p.mute {
		return len(b), nil
	}
	n, err := p.Conn.Write(b)
	return n, plainTimeout(err)
}

// rewind makes what was held be read again.
func (p *peeked) rewind() {
	p.buf = append(p.kept, p.buf...)
	p.kept, p.hold, p.mute = nil, false, false
}
