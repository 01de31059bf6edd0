package strict

import "bytes"

// state is what the next byte is part of.
type state uint8

const (
	inMethod state = iota
	inTarget
	inVersion
	atRequestLF
	// atLine is the first byte of a header line, or the CR of the empty one.
	atLine
	inName
	inValue
	atLineLF
	atHeadLF
	inBody
	inChunkSize
	atChunkSizeLF
	inChunk
	atChunkCR
	atChunkLF
)

const (
	maxMethod = 64
	// maxFraming bounds the values that are kept: those of the headers that say how long a body is.
	maxFraming = 24
	// maxName is that of the longest name that means something here.
	maxName = len("transfer-encoding")
	// maxDigits bounds a length, maxHex the size of a chunk.
	maxDigits, maxHex = 18, 8
)

// machine reads requests byte by byte. It keeps no more of them than is in its fields.
type machine struct {
	limits Limits
	state  state
	// trailer says that header lines are those after a chunked body.
	trailer bool
	old     bool

	// head counts bytes of the head or trailer, lines its header lines, at bytes of the current element.
	head, lines, at int
	// left is what is left of a body or chunk.
	left int64

	method  [len("CONNECT")]byte
	name    [maxName]byte
	value   [maxFraming]byte
	framing bool

	length           int64
	hasLength        bool
	chunked, hasHost bool
	connect          bool

	// wholeHeads counts the heads of requests so far.
	wholeHeads int64
	// ended, when set, is told how many bytes of what is scanned belong to the request that has ended.
	ended func(n int)
}

// scan checks bytes. It returns how many of them are good, and what is wrong with the next.
func (m *machine) scan(p []byte) (int, Kind) {
	for i := 0; i < len(p); {
		if m.state == inBody || m.state == inChunk {
			n := min(m.left, int64(len(p)-i))
			i += int(n)
			if m.left -= n; m.left == 0 {
				m.bodyEnded(i)
			}
			continue
		}
		if n := m.run(p[i:]); n > 0 {
			i += n
			continue
		}
		if kind := m.step(p[i], i+1); kind != "" {
			return i, kind
		}
		i++
	}
	return len(p), ""
}

// run takes as many bytes as there are in the middle of a target, a name, or a value without meaning, which is where most bytes of heads are.
func (m *machine) run(p []byte) int {
	n := 0
	p = p[:min(len(p), max(m.most()-m.head, 0))]
	switch {
	case m.state == inValue && !m.framing:
		for n < len(p) && valueChar[p[n]] {
			n++
		}
	case m.state == inTarget:
		for n < len(p) && targetChar[p[n]] {
			n++
		}
		m.at += n
	case m.state == inName:
		for n < len(p) && token[p[n]] {
			m.keepName(p[n])
			n++
		}
	}
	m.head += n
	return n
}

// most is how long the head or trailer may be.
func (m *machine) most() int {
	if m.trailer {
		return min(maxTrailer, m.limits.Head)
	}
	return m.limits.Head
}

func (m *machine) bodyEnded(n int) {
	if m.state == inChunk {
		m.state = atChunkCR
		return
	}
	m.next(n)
}

// next begins with the next request.
func (m *machine) next(n int) {
	*m = machine{limits: m.limits, ended: m.ended, wholeHeads: m.wholeHeads}
	if m.ended != nil {
		m.ended(n)
	}
}

// step takes one byte, the one before n.
func (m *machine) step(c byte, n int) Kind {
	if m.state < inBody {
		if m.head++; m.head > m.most() {
			return TooLong
		}
	}
	switch {
	case m.state <= atRequestLF:
		return m.requestLine(c)
	case m.state < inBody:
		return m.headers(c, n)
	}
	return m.chunks(c)
}

func (m *machine) requestLine(c byte) Kind {
	switch m.state {
	case inMethod:
		switch {
		case c == ' ' && m.at > 0:
			m.connect = m.at == len(m.method) && string(m.method[:]) == "CONNECT"
			m.state, m.at = inTarget, 0
		case !token[c] || m.at == maxMethod:
			return BadMethod
		default:
			if m.at < len(m.method) {
				m.method[m.at] = c
			}
			m.at++
		}
	case inTarget:
		switch {
		case c == ' ' && m.at > 0:
			m.state, m.at = inVersion, 0
		case !targetChar[c]:
			return BadTarget // without a version, too: that is HTTP/0.9
		default:
			m.at++
		}
	case inVersion:
		const start = "HTTP/1."
		switch {
		case m.at < len(start) && c == start[m.at]:
			m.at++
		case m.at == len(start) && (c == '0' || c == '1'):
			m.old = c == '0'
			m.at++
		case m.at > len(start) && c == '\r':
			m.state = atRequestLF
		case m.at > len(start) && c == '\n':
			return BadLineEnd
		default:
			return BadVersion
		}
	default: // atRequestLF
		if c != '\n' {
			return BadLineEnd
		}
		m.state = atLine
	}
	return ""
}

func (m *machine) headers(c byte, n int) Kind {
	switch m.state {
	case atLine:
		return m.lineBegins(c)
	case inName:
		switch {
		case c == ':':
			return m.nameEnds()
		case !token[c]:
			return BadName
		}
		m.keepName(c)
	case inValue:
		switch {
		case c == '\r':
			m.state = atLineLF
			return m.valueEnds()
		case c == '\n':
			return BadLineEnd
		case !valueChar[c]:
			return BadValue
		case m.framing:
			if m.at < maxFraming {
				m.value[m.at] = c
			}
			m.at++
		}
	case atLineLF:
		if c != '\n' {
			return BadLineEnd
		}
		m.state = atLine
	default: // atHeadLF
		if c != '\n' {
			return BadLineEnd
		}
		return m.headEnds(n)
	}
	return ""
}

func (m *machine) lineBegins(c byte) Kind {
	switch {
	case c == '\r':
		m.state = atHeadLF
		return ""
	case c == '\n':
		return BadLineEnd
	case c == ' ' || c == '\t':
		return Folded
	case !token[c]:
		return BadName
	}
	if m.lines++; m.lines > m.limits.Headers {
		return TooMany
	}
	m.state, m.at = inName, 0
	m.keepName(c)
	return ""
}

func (m *machine) keepName(c byte) {
	if m.at < maxName {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		m.name[m.at] = c
	}
	m.at++
}

// nameEnds looks at a name that is whole.
func (m *machine) nameEnds() Kind {
	length := m.at
	m.state, m.at, m.framing = inValue, 0, false
	if length > maxName {
		return ""
	}
	switch string(m.name[:length]) {
	case "content-length":
		if m.hasLength && !m.trailer {
			return SecondLength
		}
		m.framing = true
	case "transfer-encoding":
		if m.chunked && !m.trailer {
			return SecondEncoding
		}
		m.framing = true
	case "host":
		if m.hasHost && !m.trailer {
			return SecondHost
		}
		m.hasHost = true
		if !m.trailer {
			return ""
		}
	default:
		return ""
	}
	if m.trailer {
		return BadTrailer
	}
	return ""
}

// valueEnds looks at the value of a header that says how long the body is. One space before it is what clients send.
func (m *machine) valueEnds() Kind {
	if !m.framing {
		return ""
	}
	value := bytes.TrimPrefix(m.value[:min(m.at, maxFraming)], []byte(" "))
	if m.name[0] == 't' {
		if m.at > maxFraming || string(value) != "chunked" {
			return BadEncoding
		}
		m.chunked = true
	} else {
		if m.at > maxFraming || len(value) == 0 || len(value) > maxDigits || (value[0] == '0' && len(value) > 1) {
			return BadLength
		}
		for _, c := range value {
			if c < '0' || c > '9' {
				return BadLength
			}
			m.length = m.length*10 + int64(c-'0')
		}
		m.hasLength = true
	}
	switch {
	case m.chunked && m.hasLength:
		return LengthAndEncoding
	case m.chunked && m.old:
		return OldEncoding
	case m.connect:
		return ConnectBody
	}
	return ""
}

// headEnds begins with the body, or after a trailer with the next request.
func (m *machine) headEnds(n int) Kind {
	if !m.trailer {
		m.wholeHeads++
	}
	switch {
	case m.trailer:
		m.next(n)
	case m.chunked:
		m.state, m.at, m.left = inChunkSize, 0, 0
	case m.length > 0:
		m.state, m.left = inBody, m.length
	default:
		m.next(n)
	}
	return ""
}

// chunks reads what is around the chunks. There are no extensions: nobody needs them, and everybody reads them differently.
func (m *machine) chunks(c byte) Kind {
	switch m.state {
	case inChunkSize:
		digit := hexDigit(c)
		switch {
		case digit >= 0 && m.at < maxHex:
			m.left = m.left<<4 | int64(digit)
			m.at++
		case c == '\r' && m.at > 0:
			m.state = atChunkSizeLF
		default:
			return BadChunk
		}
		return ""
	case atChunkSizeLF:
		if m.left > 0 {
			m.state = inChunk
		} else {
			m.state, m.trailer, m.head, m.lines = atLine, true, 0, 0
		}
	case atChunkCR:
		if c != '\r' {
			return BadChunk
		}
		m.state = atChunkLF
		return ""
	default: // atChunkLF
		m.state, m.at, m.left = inChunkSize, 0, 0
	}
	if c != '\n' {
		return BadChunk
	}
	return ""
}

func hexDigit(c byte) int {
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

// targetChar are the characters of targets, valueChar those of values; both may hold letters beyond ASCII.
var targetChar, valueChar = func() (target, value [256]bool) {
	for c := range 256 {
		target[c] = c > ' ' && c != 0x7f
		value[c] = target[c] || c == ' ' || c == '\t'
	}
	return target, value
}()

// token are the characters of methods and header names (RFC 9110).
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()
