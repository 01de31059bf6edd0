package swap

import (
	"errors"

	"capsem/core/detect/match"
	"capsem/core/mitm/flow"
)

// Socket looks through one direction of a WebSocket's messages, after its request has gone through the modifiers. A message may come in
// pieces; a placeholder is found over the borders of pieces and of messages.
type Socket struct {
	up     bool
	stream *match.Stream
	failed error
	// found says that a value was in what the host sent.
	found bool
}

// Socket makes one for a flow: up is from the guest. It is nil when there is nothing to look for.
func (m *Modifiers) Socket(f *flow.Flow, up bool) *Socket {
	p, ok := f.Get(passKey{}).(*pass)
	switch {
	case !ok, !up && !p.any:
		return nil
	case up:
		return &Socket{up: true, stream: match.NewStream(p.t.placeholders, func(h *match.Hit) ([]byte, error) {
			return nil, p.stray("websocket message", h.Secret, h.Form)
		})}
	}
	s := &Socket{}
	s.stream = p.scrubber("websocket message", func() { s.found = true })
	return s
}

// Push takes a piece of a message and gives what can go on; last says that the message ends with it, and then all of it goes. An error is
// a refusal (flow.Refusal): the connection has to end, and nothing more is passed on.
func (s *Socket) Push(piece []byte, last bool) ([]byte, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	if s.up { // it changes nothing, and goes on to look where the next message begins
		_, s.failed = s.stream.Push(piece, false)
		return piece, s.failed
	}
	out, err := s.stream.Push(piece, last)
	s.failed = err
	return out, err //nolint:wrapcheck // a refusal is the answer
}

// errValue is a message of a host that has a credential in it: where messages cannot be changed the connection ends instead.
var errValue = errors.New("a message of the host has a credential in it")

// See looks at a piece of a message where messages cannot be changed, and gives why it must not go on; last says that the message ends with
// it. A nil Socket sees nothing.
func (s *Socket) See(piece []byte, last bool) error {
	if s == nil {
		return nil
	}
	_, err := s.Push(piece, last)
	if err == nil && s.found {
		err = errValue
		s.failed = err
	}
	return err
}
