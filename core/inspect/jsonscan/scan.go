// Package jsonscan reads JSON as it comes, in pieces of any size, and holds none of it but what a bounded text needs: a document of any
// length costs the same memory. It is lenient where that loses nothing (control characters in texts, several documents one after the
// other), and stops with an error where what follows cannot be understood.
package jsonscan

import (
	"bytes"
	"errors"
)

// Kind is what a value is.
type Kind uint8

// The kinds of values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Object
	Array
)

const (
	// MaxDepth is how many objects and arrays may be open at once.
	MaxDepth = 512
	// DefaultText is how much of a text is kept where a Scanner does not say.
	DefaultText = 4 << 10
	// maxKey and maxWord bound a key and a number, in bytes.
	maxKey, maxWord = 256, 64
	// window is how far is looked for the end of a text at a time.
	window = 512
)

// The errors of a Scanner.
var (
	ErrSyntax    = errors.New("malformed JSON")
	ErrDeep      = errors.New("JSON is nested too deep")
	ErrTruncated = errors.New("JSON ends in the middle")
)

// Handler is told what is in a document. Each of its functions may be nil.
type Handler struct {
	// Begin and End are called for each object and array; End also when all of a document has been read, with an empty path.
	Begin, End func(p Path, k Kind)
	// Value is called for everything else.
	Value func(p Path, v Value)
}

// Value is a text, a number, true, false or null.
type Value struct {
	Kind Kind
	// Text is the text, or a number or a word as it is written. It is only valid during the call. Cut says that it is only the beginning.
	Text []byte
	Cut  bool
	// Size is the length of all of it, in bytes.
	Size int64
}

// state is what is expected next.
type state uint8

const (
	wantValue      state = iota
	wantFirstValue       // or the end of an array
	wantFirstKey         // or the end of an object
	wantKey
	wantColon
	wantMore // a comma or the end
	inString
	inWord
)

// Scanner reads documents.
type Scanner struct {
	// On is told what is found.
	On Handler
	// MaxText is how much of a text is kept; 0 is DefaultText.
	MaxText int

	steps []step
	keys  []byte
	state state
	err   error

	// What is being read: a text (key or value), or a word.
	text  []byte
	size  int64
	cut   bool
	isKey bool
	esc   escape
	docs  int
	// base is how much was read before this call of Write, at what of it has been read.
	base, at int64
}

// Offset is, during a call of the handler's End, the offset behind what has ended.
func (s *Scanner) Offset() int64 { return s.at }

// Documents is how many documents have been read to their end.
func (s *Scanner) Documents() int { return s.docs }

// Reset forgets everything but the settings.
func (s *Scanner) Reset() {
	*s = Scanner{On: s.On, MaxText: s.MaxText, steps: s.steps[:0], keys: s.keys[:0], text: s.text[:0]}
}

// Close says that nothing follows.
func (s *Scanner) Close() error {
	if s.err == nil && s.state == inWord && len(s.steps) == 0 {
		s.endWord() // a number at the top has no other end
	}
	if s.err == nil && (len(s.steps) > 0 || s.state != wantValue) {
		return ErrTruncated
	}
	return s.err
}

// Write reads on. After an error it reads no more, and returns the error again.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	defer func() { s.base += int64(n) }()
	for len(p) > 0 && s.err == nil {
		s.at = s.base + int64(n-len(p)) + 1
		switch s.state {
		case inString:
			p = s.string(p)
		case inWord:
			p = s.word(p)
		default:
			p = s.structure(p)
		}
	}
	if s.err != nil {
		return n - len(p), s.err
	}
	return n, nil
}

func (s *Scanner) fail(err error) { s.err = err }

// structure reads what is between texts and words.
func (s *Scanner) structure(p []byte) []byte {
	c := p[0]
	switch {
	case c == ' ' || c == '\n' || c == '\r' || c == '\t':
		return p[1:]
	case s.state == wantColon:
		if c != ':' {
			s.fail(ErrSyntax)
		}
		s.state = wantValue
		return p[1:]
	case s.state == wantMore:
		s.more(c)
		return p[1:]
	case s.state == wantKey || s.state == wantFirstKey:
		switch {
		case c == '"':
			s.begin(true)
		case c == '}' && s.state == wantFirstKey:
			s.close(Object)
		default:
			s.fail(ErrSyntax)
		}
		return p[1:]
	}
	return s.value(p)
}

func (s *Scanner) value(p []byte) []byte {
	switch c := p[0]; {
	case c == '"':
		s.begin(false)
	case c == '{':
		s.open(false, wantFirstKey)
	case c == '[':
		s.open(true, wantFirstValue)
	case c == ']' && s.state == wantFirstValue:
		s.close(Array)
	case c == '-' || c >= '0' && c <= '9' || c == 't' || c == 'f' || c == 'n':
		s.begin(false)
		s.state = inWord
		return p
	default:
		s.fail(ErrSyntax)
	}
	return p[1:]
}

// begin begins a text.
func (s *Scanner) begin(key bool) {
	s.text, s.size, s.cut, s.isKey, s.esc = s.text[:0], 0, false, key, escape{}
	s.state = inString
}

func (s *Scanner) open(array bool, next state) {
	if len(s.steps) >= MaxDepth {
		s.fail(ErrDeep)
		return
	}
	if s.On.Begin != nil {
		s.On.Begin(s.path(), kindOf(array))
	}
	s.steps = append(s.steps, step{array: array, from: len(s.keys), to: len(s.keys)})
	s.state = next
}

func kindOf(array bool) Kind {
	if array {
		return Array
	}
	return Object
}

func (s *Scanner) close(k Kind) {
	top := &s.steps[len(s.steps)-1]
	if kindOf(top.array) != k {
		s.fail(ErrSyntax)
		return
	}
	s.keys = s.keys[:top.from]
	s.steps = s.steps[:len(s.steps)-1]
	if s.On.End != nil {
		s.On.End(s.path(), k)
	}
	s.done()
}

// done follows a value.
func (s *Scanner) done() {
	if len(s.steps) == 0 {
		s.docs++
		s.state = wantValue
		return
	}
	s.state = wantMore
}

func (s *Scanner) more(c byte) {
	top := &s.steps[len(s.steps)-1]
	switch {
	case c == ',' && top.array:
		top.index++
		s.state = wantValue
	case c == ',':
		s.state = wantKey
	case c == ']':
		s.close(Array)
	case c == '}':
		s.close(Object)
	default:
		s.fail(ErrSyntax)
	}
}

func (s *Scanner) path() Path { return Path{s.steps, &s.keys} }

// keep keeps a part of the text.
func (s *Scanner) keep(p []byte) {
	s.size += int64(len(p))
	limit := s.MaxText
	if limit == 0 {
		limit = DefaultText
	}
	if s.isKey {
		limit = maxKey
	}
	if room := limit - len(s.text); room < len(p) {
		p, s.cut = p[:max(room, 0)], true
	}
	s.text = append(s.text, p...)
}

// string reads on in a text.
func (s *Scanner) string(p []byte) []byte {
	if s.esc.active() {
		return s.escaped(p)
	}
	if p[0] != '\\' {
		s.flushSurrogate()
	}
	// The end is looked for a little at a time: a text of nothing but escapes must not be searched to its end for each of them.
	near := p[:min(len(p), window)]
	end := bytes.IndexByte(near, '"')
	if end < 0 {
		end = len(near)
	}
	if back := bytes.IndexByte(near[:end], '\\'); back >= 0 {
		s.keep(p[:back])
		s.esc.begin()
		return p[back+1:]
	}
	s.keep(p[:end])
	if end == len(near) {
		return p[end:]
	}
	s.endString()
	return p[end+1:]
}

func (s *Scanner) endString() {
	if !s.isKey {
		if s.On.Value != nil {
			s.On.Value(s.path(), Value{String, s.text, s.cut, s.size})
		}
		s.done()
		return
	}
	top := &s.steps[len(s.steps)-1]
	s.keys = append(s.keys[:top.from], s.text...)
	top.to, top.long = len(s.keys), s.cut
	s.state = wantColon
}

// word reads on in a number, true, false or null.
func (s *Scanner) word(p []byte) []byte {
	n := 0
	for n < len(p) && isWord(p[n]) {
		n++
	}
	s.size += int64(n)
	if len(s.text)+n > maxWord {
		s.fail(ErrSyntax)
		return p
	}
	s.text = append(s.text, p[:n]...)
	if n < len(p) {
		s.endWord()
	}
	return p[n:]
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
}

func (s *Scanner) endWord() {
	kind := Number
	switch string(s.text) {
	case "true", "false":
		kind = Bool
	case "null":
		kind = Null
	default:
		if !isNumber(s.text) {
			s.fail(ErrSyntax)
			return
		}
	}
	if s.On.Value != nil {
		s.On.Value(s.path(), Value{kind, s.text, false, s.size})
	}
	s.done()
}
