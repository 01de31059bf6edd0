// Package sse reads server-sent events as they come, in pieces of any size, and holds none of their data: it is handed on as it is read.
// Lines end in LF, CR or CRLF; the lines of an event's data are joined by LF.
package sse

import "bytes"

const (
	// MaxName bounds the name of an event; a longer one is cut.
	MaxName = 256
	// MaxEvent bounds the data of one event; what is beyond is left out, and the event marked.
	MaxEvent = 64 << 20
	// maxField is the longest name of a field that means something, and the colon.
	maxField = 6
)

// Event is one that has ended.
type Event struct {
	// Name is its name, only valid during the call; empty for none.
	Name []byte
	// Size is how much data it had. Cut says that some of it was left out.
	Size int64
	Cut  bool
	// End is the offset in the stream behind the event.
	End int64
}

// Parser reads a stream.
type Parser struct {
	// Data is given the data of an event as it is read.
	Data func(p []byte)
	// Event is called at the end of an event that had data or a name.
	Event func(e Event)

	offset int64
	field  field
	// head is the beginning of a line, until its field is known.
	head []byte
	// begun says that something of the line was read; space that one space may be left out.
	begun, space bool
	// wasCR says that the line before ended in CR, so an LF belongs to it.
	wasCR bool
	name  []byte
	lines int
	size  int64
	cut   bool
	seen  bool
}

// field is which field a line has.
type field uint8

const (
	unknown field = iota
	ignored
	data
	event
)

// Offset is how much has been read.
func (p *Parser) Offset() int64 { return p.offset }

// Open reports whether an event has begun and not ended.
func (p *Parser) Open() bool { return p.seen || p.begun || p.lines > 0 || len(p.name) > 0 }

// Write reads on. It never fails.
func (p *Parser) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if p.wasCR {
			p.wasCR = false
			if b[0] == '\n' {
				p.offset++
				b = b[1:]
				continue
			}
		}
		end := lineEnd(b)
		if end < 0 {
			p.offset += int64(len(b))
			p.part(b)
			break
		}
		p.offset += int64(end) + 1
		p.part(b[:end])
		p.wasCR = b[end] == '\r'
		p.endLine()
		b = b[end+1:]
	}
	return n, nil
}

// lineEnd is where the first line ends, -1 when it does not.
func lineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return lf
}

// part takes a part of a line.
func (p *Parser) part(b []byte) {
	if len(b) == 0 {
		return
	}
	p.begun = true
	if p.field == unknown {
		if b = p.find(b); len(b) == 0 {
			return
		}
	}
	if p.field == ignored {
		return
	}
	if p.space {
		p.space = false
		if b[0] == ' ' {
			b = b[1:]
		}
	}
	switch p.field {
	case data:
		p.give(b)
	case event:
		p.name = append(p.name, b[:min(len(b), MaxName-len(p.name))]...)
	case unknown, ignored:
	}
}

// find reads the name of a line's field, and returns what follows it.
func (p *Parser) find(b []byte) []byte {
	for i, c := range b {
		if c == ':' {
			p.named()
			return b[i+1:]
		}
		if len(p.head) == maxField {
			p.field = ignored
			return nil
		}
		p.head = append(p.head, c)
	}
	return nil
}

// named begins the value of a field.
func (p *Parser) named() {
	p.space = true
	switch string(p.head) {
	case "data":
		p.field = data
		p.seen = true
		if p.lines++; p.lines > 1 {
			p.give([]byte{'\n'})
		}
	case "event":
		p.field, p.name = event, p.name[:0]
	default:
		p.field = ignored
	}
}

func (p *Parser) give(b []byte) {
	if room := MaxEvent - p.size; int64(len(b)) > room {
		b, p.cut = b[:room], true
	}
	p.size += int64(len(b))
	if len(b) > 0 && p.Data != nil {
		p.Data(b)
	}
}

func (p *Parser) endLine() {
	blank := !p.begun
	if p.field == unknown && !blank {
		p.named() // a field without a colon has an empty value
	}
	p.field, p.head, p.begun, p.space = unknown, p.head[:0], false, false
	if !blank {
		return
	}
	if (p.seen || len(p.name) > 0) && p.Event != nil {
		p.Event(Event{Name: p.name, Size: p.size, Cut: p.cut, End: p.offset})
	}
	p.name, p.lines, p.size, p.cut, p.seen = p.name[:0], 0, 0, false, false
}
