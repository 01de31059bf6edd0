package match

import (
	"bytes"
	"sync"
)

// maxHeld bounds what is held back of a text that might go on to be a secret forever, such as base64 with endless line ends.
const maxHeld = 64 << 10

// maxPooled bounds what is kept to be used again, in bytes of one buffer.
const maxPooled = 128 << 10

// Stream looks through one text that comes in pieces. It is for one goroutine.
type Stream struct {
	secrets *Secrets
	on      func(*Hit) ([]byte, error)
	*buffers
	found [4]hitAt
}

// buffers are what a Stream works in. There are as many texts as requests, so they are used again.
type buffers struct {
	// held is what has come and not gone out; before is the end of what has.
	held, out, before []byte
	// text is what is looked at: what is held with what has come, or that alone.
	text            []byte
	escaped, packed view
	parts           []part
}

var pool = sync.Pool{New: func() any { return new(buffers) }}

// hitAt is the next hit in one view; secret is -1 when there is none.
type hitAt struct {
	secret, from, to int
	code             code
}

// keepBefore is how much of what has gone out a Hit shows.
const keepBefore = 256

// NewStream makes a stream. on is told of every secret and says what is to be there instead, nil for the secret itself; its error ends
// the stream, with nothing of that secret passed on.
func NewStream(secrets *Secrets, on func(*Hit) ([]byte, error)) *Stream {
	b, _ := pool.Get().(*buffers)
	return &Stream{secrets: secrets, on: on, buffers: b}
}

// Free says that the stream has ended, and that nothing that it gave is used any more. It is no duty. Nothing can be pushed after it.
func (s *Stream) Free() {
	b := s.buffers
	s.buffers = nil
	if b == nil || cap(b.held) > maxPooled || cap(b.out) > maxPooled || cap(b.packed.runs) > maxPooled/16 || cap(b.escaped.runs) > maxPooled/16 {
		return
	}
	b.held, b.out, b.before, b.text = b.held[:0], b.out[:0], b.before[:0], nil
	pool.Put(b)
}

// Push takes the next piece and gives what can go out: all but what may be the beginning of a secret, or with last everything. The
// result is good until the next call.
func (s *Stream) Push(p []byte, last bool) ([]byte, error) {
	if s.secrets.count == 0 {
		return p, nil
	}
	if s.text = p; len(s.held) > 0 {
		s.held = append(s.held, p...)
		s.text = s.held
	}
	s.out = s.out[:0]
	s.look()
	done := 0
	for {
		h, form := s.next(done)
		if h.secret < 0 {
			break
		}
		s.out = append(s.out, s.text[done:h.from]...)
		instead, err := s.tell(h, form)
		if err != nil {
			s.held = s.held[:0]
			return s.out, err
		}
		s.out = append(s.out, instead...)
		done = h.to
	}
	keep := len(s.text)
	if !last {
		keep = max(s.incomplete(done), done)
		keep = max(keep, len(s.text)-maxHeld)
	}
	out := s.text[:keep]
	if done > 0 || len(s.held) > 0 { // else what has come goes out as it is
		s.out = append(s.out, s.text[done:keep]...)
		out = s.out
	}
	s.remember(out)
	s.held = append(s.held[:0], s.text[keep:]...)
	return out, nil
}

// Held is how many bytes wait for what comes next.
func (s *Stream) Held() int { return len(s.held) }

// The ways in which a text is looked through. What is special to none of them is only looked at as it is.
const (
	asIs = iota
	unescaped
	unpacked
	packedAsIs
)

// look makes the views of what is held.
func (s *Stream) look() {
	for i := range s.found {
		s.found[i] = hitAt{secret: 0, from: -1}
	}
	s.parts = s.secrets.dirty(s.text, s.parts[:0])
	if len(s.parts) == 0 {
		s.found[unescaped].secret, s.found[unpacked].secret = -1, -1
		return
	}
	s.escaped.build(s.text, false, s.parts, s.secrets.between)
	s.packed.build(s.text, true, s.parts, s.secrets.between)
}

// next gives the first hit at or after a place in what is held.
func (s *Stream) next(done int) (hitAt, Form) {
	best, form := hitAt{secret: -1}, Plain
	for way := range s.found {
		h := &s.found[way]
		if h.secret < 0 {
			continue
		}
		if h.from < done {
			*h = s.find(way, done)
		}
		if h.secret >= 0 && (best.secret < 0 || h.from < best.from) {
			best, form = *h, [...]Form{asIs: Plain, unescaped: Escaped, unpacked: Base64, packedAsIs: Base64}[way]
		}
	}
	return best, form
}

func (s *Stream) find(way, done int) hitAt {
	set, v := s.secrets.plain, &s.escaped
	switch way {
	case asIs, packedAsIs:
		if way == packedAsIs {
			set = s.secrets.packed
		}
		at, p := set.Find(s.text, done)
		if p < 0 {
			return hitAt{secret: -1}
		}
		return s.hit(way, p, at, at+len(set.patterns[p]))
	case unpacked:
		set, v = s.secrets.packed, &s.packed
	}
	at, p := set.Find(v.text, v.place(done))
	if p < 0 {
		return hitAt{secret: -1}
	}
	return s.hit(way, p, v.from(at), v.to(at+len(set.patterns[p])-1))
}

func (s *Stream) hit(way, pattern, from, to int) hitAt {
	h := hitAt{secret: pattern, from: from, to: to}
	if way == unpacked || way == packedAsIs {
		h.code = s.secrets.codes[pattern]
		h.secret = h.code.secret
	}
	return h
}

// tell reports a hit and gives what is to be there.
func (s *Stream) tell(h hitAt, form Form) ([]byte, error) {
	before := s.text[max(0, h.from-keepBefore):h.from]
	if h.from < keepBefore && len(s.before) > 0 {
		before = append(bytes.Clone(s.before), before...)
	}
	hit := &Hit{
		Secret: h.secret, Form: form, Raw: s.text[h.from:h.to], Before: before, After: s.text[h.to:min(len(s.text), h.to+keepBefore)],
		code: h.code, length: len(s.secrets.plain.patterns[h.secret]),
	}
	instead, err := s.on(hit)
	if instead == nil {
		instead = hit.Raw
	}
	return instead, err
}

// incomplete is where what may be the beginning of a secret begins.
func (s *Stream) incomplete(done int) int {
	keep := min(s.secrets.plain.Partial(s.text, done), s.secrets.packed.Partial(s.text, done))
	if len(s.parts) == 0 {
		return keep
	}
	e, p := &s.escaped, &s.packed
	keep = min(keep, e.from(s.secrets.plain.Partial(e.text, e.place(done))), e.open)
	return min(keep, p.from(s.secrets.packed.Partial(p.text, p.place(done))), p.open)
}

// remember keeps the end of what goes out.
func (s *Stream) remember(out []byte) {
	if n := len(out); n >= keepBefore {
		s.before = append(s.before[:0], out[n-keepBefore:]...)
		return
	}
	s.before = append(s.before, out...)
	if n := len(s.before); n > keepBefore {
		s.before = s.before[:copy(s.before, s.before[n-keepBefore:])]
	}
}
