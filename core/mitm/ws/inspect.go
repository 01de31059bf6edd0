package ws

import (
	"slices"

	"capsem/core/mitm/flow"
)

type (
	inspectorsKey struct{}
	piecesKey     struct{}
)

// inspectors are those of one connection, with how much of a message each wants.
type inspectors struct {
	keep int
	all  []func(Message) error
}

// Inspect has see called with each message of a request's WebSocket connection, with up to keep bytes of it; its error ends the connection.
// To be called from a modifier, before the connection is made. The calls for one direction come one after the other, those for the two
// directions at the same time.
func Inspect(f *flow.Flow, keep int, see func(Message) error) {
	old, _ := f.Get(inspectorsKey{}).(inspectors)
	f.Set(inspectorsKey{}, inspectors{keep: min(max(old.keep, keep), MaxKeep), all: append(slices.Clip(old.all), see)})
}

// Pieces has see called with each piece of a message before it goes on; its error ends the connection, and the piece does not pass.
// Otherwise as Inspect.
func Pieces(f *flow.Flow, see func(Piece) error) {
	old, _ := f.Get(piecesKey{}).([]func(Piece) error)
	f.Set(piecesKey{}, append(slices.Clip(old), see))
}

// Readers makes the readers of a request's connection, for what the guest sends and for what it gets.
func Readers(f *flow.Flow) (sent, received *Reader) {
	sent, received = readers(f)
	if all, _ := f.Get(piecesKey{}).([]func(Piece) error); len(all) > 0 {
		see := func(p Piece) error {
			for _, one := range all {
				if err := one(p); err != nil {
					return err
				}
			}
			return nil
		}
		sent.piece, received.piece = see, see
	}
	return sent, received
}

func readers(f *flow.Flow) (sent, received *Reader) {
	in, _ := f.Get(inspectorsKey{}).(inspectors)
	if len(in.all) == 0 {
		return NewReader(true, 0, nil), NewReader(false, 0, nil)
	}
	got := func(m Message) error {
		for _, see := range in.all {
			if err := see(m); err != nil {
				return err
			}
		}
		return nil
	}
	return NewReader(true, in.keep, got), NewReader(false, in.keep, got)
}
