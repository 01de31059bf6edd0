package detect

import (
	"fmt"
	"sync"

	"capsem/core/detect/match"
)

// The detectors.
const (
	// Secrets finds keys by their form, OwnSecrets the owner's by their hashes, Injection orders to a model.
	Secrets, OwnSecrets, Injection = "secrets", "own_secrets", "injection"
)

// maxFindings bounds what is reported of one text.
const maxFindings = 32

// Finding is something that was found. It has no part of what was.
type Finding struct {
	// Detector is Secrets, OwnSecrets or Injection; Rule the kind of secret, the name of the owner's, or the mark.
	Detector, Rule string
	// Where is the part of the request or answer, set by who looks.
	Where string
}

// String is for the record.
func (f Finding) String() string {
	text := f.Detector + "/" + f.Rule
	if f.Where != "" {
		text += " in the " + f.Where
	}
	return text
}

// finder looks for patterns that begin with words.
type finder struct {
	detector string
	set      *match.Set
	// of says for each word of the set which pattern it begins.
	of  []*pattern
	all []pattern
}

func newFinder(detector string, all []pattern) *finder {
	f := &finder{detector: detector, all: all}
	var words [][]byte
	for i := range all {
		for _, w := range all[i].words {
			words, f.of = append(words, []byte(w)), append(f.of, &all[i])
		}
	}
	var err error
	if f.set, err = match.NewSet(words); err != nil {
		panic(fmt.Sprintf("words of %s: %v", detector, err)) // a test holds it
	}
	return f
}

// Engine is what is looked for. It may be used by many goroutines.
type Engine struct {
	secrets, injection *finder
	own                func() *Own
}

// NewEngine makes one. own gives the hashes of the owner's secrets as they are now; it may be nil, and may give nil.
func NewEngine(own func() *Own) *Engine {
	none := NewOwn(nil)
	now := func() *Own {
		if own != nil {
			if o := own(); o != nil {
				return o
			}
		}
		return none
	}
	return &Engine{secrets: newFinder(Secrets, patterns), injection: newFinder(Injection, marks), own: now}
}

// Scan looks through one text that comes in pieces.
type Scan struct {
	e    *Engine
	own  *Own
	host string
	// header says that it is of a header that carries sign-ins.
	header bool
	// out and in say which way it goes.
	out, in bool
	folded  fold
	// raw and words are what has come and may go on; seen is what was found.
	raw, words []byte
	// open is how much of the end of the text may go on to be a secret.
	open int
	seen map[Finding]bool
}

// Outgoing looks for secrets in what goes to a host.
func (e *Engine) Outgoing(host string) *Scan {
	return &Scan{e: e, own: e.own(), host: host, out: true}
}

// Incoming looks for marks of orders in what comes back.
func (e *Engine) Incoming() *Scan { return &Scan{e: e, in: true} }

// Header says that the text is of a header that carries sign-ins, where tokens belong.
func (s *Scan) Header() *Scan {
	s.header = true
	return s
}

// keepToken is how much of a text is kept for what may go on in the next piece; a mark needs less.
const keepToken, keepMark = maxToken, 512

// Push takes the next piece and gives what is found now, each thing once; last says that it ends.
func (s *Scan) Push(p []byte, last bool) []Finding {
	var found []Finding
	tell := func(f Finding) {
		if !s.seen[f] && len(s.seen) < maxFindings {
			if s.seen == nil {
				s.seen = map[Finding]bool{}
			}
			s.seen[f] = true
			found = append(found, f)
		}
	}
	if s.out {
		if s.raw == nil {
			s.raw = getBuffer()
		}
		fresh := max(0, len(s.raw)-(Window-1))
		s.raw = append(s.raw, p...)
		s.own.find(s.raw[fresh:], func(name string, _ int) { tell(Finding{Detector: OwnSecrets, Rule: name}) })
		done := s.e.secrets.look(s.raw, last, keepToken, func(r *pattern) {
			if !r.athome(s.host) && (!r.quiet || !s.header) {
				tell(Finding{Detector: Secrets, Rule: r.rule})
			}
		})
		s.open = len(s.raw) - done
		done = min(done, max(0, len(s.raw)-(Window-1)))
		s.raw = s.raw[:copy(s.raw, s.raw[done:])]
	}
	if s.in {
		if s.words == nil {
			s.words, s.folded.out = getBuffer(), getBuffer()
		}
		s.words = append(s.words, s.folded.push(p, last)...)
		if s.folded.smuggled {
			tell(Finding{Detector: Injection, Rule: hiddenRule})
		}
		done := s.e.injection.look(s.words, last, keepMark, func(r *pattern) { tell(Finding{Detector: Injection, Rule: r.rule}) })
		s.words = s.words[:copy(s.words, s.words[done:])]
	}
	return found
}

// look finds patterns in a text, and gives how much of it has been dealt with: what may go on with the next piece has not.
func (f *finder) look(text []byte, last bool, keep int, tell func(*pattern)) (done int) {
	for at := 0; ; {
		start, word := f.set.Find(text, at)
		if word < 0 {
			break
		}
		begins := start == 0 || !wordByte(text[start-1])
		if begins && !last && len(text)-start < keep && !f.already(word, text[start:]) {
			return max(0, start-1) // its end may still come; the byte before it says that it begins here
		}
		if begins && f.of[word].match(text[start:]) != "" {
			tell(f.of[word])
		}
		at = start + 1
	}
	if last {
		return len(text)
	}
	// One byte before a word says whether it begins there.
	return max(0, f.set.Partial(text, 0)-1)
}

// already says that a mark is there whatever follows, so that an answer ends behind it and not behind what it wants. Of a key all has to be seen.
func (f *finder) already(word int, text []byte) bool {
	if f.detector != Injection {
		return false
	}
	at := f.of[word].rest.FindIndex(text)
	return len(at) == 2 && at[1] < len(text)
}

// wordByte says whether a byte before a token makes it a part of something longer.
func wordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// maxPooled bounds the buffers that are used again.
const maxPooled = 128 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func getBuffer() []byte {
	b, _ := buffers.Get().(*[]byte)
	return (*b)[:0]
}

func putBuffer(b []byte) {
	if cap(b) > 0 && cap(b) <= maxPooled {
		buffers.Put(&b)
	}
}

// free gives the buffers away: the text has ended.
func (s *Scan) free() {
	putBuffer(s.raw)
	putBuffer(s.words)
	putBuffer(s.folded.out)
	s.raw, s.words, s.folded.out = nil, nil, nil
}

// Text looks through one whole text that comes back, such as the result of a tool.
func (e *Engine) Text(text []byte) []Finding { return e.Incoming().Push(text, true) }
