package proto

import (
	"errors"
	"fmt"
	"maps"
)

// partRoom is what the credentials in one frame may take: the rest is for what is around them. Nothing that Validate lets pass is longer by
// itself.
const partRoom = MaxFrame - 4<<10

// Parts splits credentials so that each part fits in one frame. They are sent one after another over one connection; all but the last have
// More set, and what has been received counts once the last is there.
func (c *Credentials) Parts() ([]*Credentials, error) {
	s := splitter{parts: []*Credentials{{}}}
	for _, g := range c.Grants {
		s.add(g, func(p *Credentials) { p.Grants = append(p.Grants, g) })
	}
	for _, f := range c.Files {
		s.add(f, func(p *Credentials) { p.Files = append(p.Files, f) })
	}
	for name, value := range c.Env {
		s.add([]string{name, value}, func(p *Credentials) { p.Env = with(p.Env, name, value) })
	}
	for name, value := range c.Servers {
		s.add([]string{name, string(value)}, func(p *Credentials) { p.Servers = with(p.Servers, name, value) })
	}
	for name, value := range c.Watched {
		s.add([]string{name, string(value)}, func(p *Credentials) { p.Watched = with(p.Watched, name, value) })
	}
	for name, mark := range c.Unrenewed {
		s.add([]string{name, mark}, func(p *Credentials) { p.Unrenewed = with(p.Unrenewed, name, mark) })
	}
	for _, p := range s.parts[:len(s.parts)-1] {
		p.More = true
	}
	return s.parts, s.err
}

func with[V any](m map[string]V, k string, v V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[k] = v
	return m
}

// splitter fills parts, one after another.
type splitter struct {
	parts []*Credentials
	used  int
	err   error
}

// add puts one thing into the last part, or into a new one where that is full.
func (s *splitter) add(v any, put func(*Credentials)) {
	text, err := Marshal(v)
	n := len(text)
	switch {
	case err != nil:
		s.err = errors.Join(s.err, err)
	case n > partRoom:
		s.err = errors.Join(s.err, fmt.Errorf("split credentials: %d bytes of one are more than a frame has", n))
	case s.used+n > partRoom:
		s.parts, s.used = append(s.parts, &Credentials{}), 0
	}
	s.used += n
	put(s.parts[len(s.parts)-1])
}

// Join adds a part that came after this one. What is there then must be validated.
func (c *Credentials) Join(next *Credentials) {
	c.Grants, c.Files = append(c.Grants, next.Grants...), append(c.Files, next.Files...)
	c.Env, c.Servers, c.Watched = both(c.Env, next.Env), both(c.Servers, next.Servers), both(c.Watched, next.Watched)
	c.Unrenewed = both(c.Unrenewed, next.Unrenewed)
	c.More = next.More
}

func both[V any](a, b map[string]V) map[string]V {
	if a == nil {
		return b
	}
	maps.Copy(a, b)
	return a
}
