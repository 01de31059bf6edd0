package match

import "bytes"

// maxHeld bounds what is held back of a text that might go on to be a secret forever, such as base64 with endless line ends.
const maxHeld = 64 << 10

// Stream looks through one text that comes in pieces. It is for one goroutine.
type Stream struct {
	secrets *Secrets
	on      func(*Hit) ([]byte, error)
	// held is what has come and not gone out; before is the end of what has.
	held, out, before []byte
	escaped, packed   view
	found             [3]hitAt
}

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
	return &Stream{secrets: secrets, on: on}
}

// Push takes the next piece and gives what can go out: all but what may be the beginning of a secret, or with last everything. The
// result is good until the next call.
func (s *Stream) Push(p []byte, last bool) ([]byte, error) {
	s.held = append(s.held, p...)
	s.out = s.out[:0]
	if s.secrets.count == 0 {
		s.out, s.held = append(s.out, s.held...), s.held[:0]
		return s.out, nil
	}
	views := s.look()
	done := 0
	for {
		h, form := s.next(done, views)
		if h.secret < 0 {
			break
		}
		s.out = append(s.out, s.held[done:h.from]...)
		instead, err := s.tell(h, form)
		if err != nil {
			s.held = s.held[:0]
			return s.out, err
		}
		s.out = append(s.out, instead...)
		done = h.to
	}
	keep := len(s.held)
	if !last {
		keep = max(s.incomplete(done, views), done)
		keep = max(keep, len(s.held)-maxHeld)
	}
	s.out = append(s.out, s.held[done:keep]...)
	s.remember()
	s.held = s.held[:copy(s.held, s.held[keep:])]
	return s.out, nil
}

// Held is how many bytes wait for what comes next.
func (s *Stream) Held() int { return len(s.held) }

// look makes the views of what is held. Without escapes and line ends they would all be the same text, and only one is used.
func (s *Stream) look() (views int) {
	for i := range s.found {
		s.found[i] = hitAt{secret: 0, from: -1}
	}
	s.packed.build(s.held, true)
	if bytes.IndexByte(s.held, '%') < 0 && bytes.IndexByte(s.held, '\\') < 0 {
		s.found[Escaped].secret = -1
		return 2
	}
	s.escaped.build(s.held, false)
	return 3
}

// next gives the first hit at or after a place in what is held.
func (s *Stream) next(done, views int) (hitAt, Form) {
	best, form := hitAt{secret: -1}, Plain
	for _, f := range []Form{Plain, Escaped, Base64} {
		h := &s.found[f]
		if f == Escaped && views < 3 || h.secret < 0 {
			continue
		}
		if h.from < done {
			*h = s.find(f, done)
		}
		if h.secret >= 0 && (best.secret < 0 || h.from < best.from) {
			best, form = *h, f
		}
	}
	return best, form
}

func (s *Stream) find(f Form, done int) hitAt {
	if f == Plain {
		at, p := s.secrets.plain.Find(s.held, done)
		if p < 0 {
			return hitAt{secret: -1}
		}
		return hitAt{secret: p, from: at, to: at + len(s.secrets.plain.patterns[p])}
	}
	set, v := s.secrets.plain, &s.escaped
	if f == Base64 {
		set, v = s.secrets.packed, &s.packed
	}
	at, p := set.Find(v.text, v.place(done))
	if p < 0 {
		return hitAt{secret: -1}
	}
	h := hitAt{secret: p, from: v.from(at), to: v.to(at + len(set.patterns[p]) - 1)}
	if f == Base64 {
		h.code = s.secrets.codes[p]
		h.secret = h.code.secret
	}
	return h
}

// tell reports a hit and gives what is to be there.
func (s *Stream) tell(h hitAt, form Form) ([]byte, error) {
	before := s.held[max(0, h.from-keepBefore):h.from]
	if h.from < keepBefore && len(s.before) > 0 {
		before = append(bytes.Clone(s.before), before...)
	}
	hit := &Hit{
		Secret: h.secret, Form: form, Raw: s.held[h.from:h.to], Before: before, After: s.held[h.to:min(len(s.held), h.to+keepBefore)],
		code: h.code, length: len(s.secrets.plain.patterns[h.secret]),
	}
	instead, err := s.on(hit)
	if instead == nil {
		instead = hit.Raw
	}
	return instead, err
}

// incomplete is where what may be the beginning of a secret begins.
func (s *Stream) incomplete(done, views int) int {
	keep := s.secrets.plain.Partial(s.held, done)
	if views > 2 {
		at := s.secrets.plain.Partial(s.escaped.text, s.escaped.place(done))
		keep = min(keep, s.escaped.from(at))
	}
	at := s.secrets.packed.Partial(s.packed.text, s.packed.place(done))
	return min(keep, s.packed.from(at), s.packed.open)
}

// remember keeps the end of what goes out.
func (s *Stream) remember() {
	if n := len(s.out); n >= keepBefore {
		s.before = append(s.before[:0], s.out[n-keepBefore:]...)
		return
	}
	s.before = append(s.before, s.out...)
	if n := len(s.before); n > keepBefore {
		s.before = s.before[:copy(s.before, s.before[n-keepBefore:])]
	}
}
