package share

import "capsem/core/share/wire"

const (
	// maxReplies is twice what a guest side may have unanswered: what it has not received is always among the last ones.
	maxReplies = 2 * wire.MaxRequests
	// maxReply is the longest answer kept; longer ones are of requests that may be carried out twice.
	maxReply = 512
)

// reply is an answer that was given.
type reply struct {
	Unique  uint64 `cbor:"u"`
	Message []byte `cbor:"m"`
}

// replies are the last answers to requests that must not be carried out twice: when a stream broke, the guest side sends
// again what it has no answer to.
type replies struct {
	ring []reply
	next int
	at   map[uint64]int
}

func (r *replies) add(unique uint64, message []byte) {
	if len(message) > maxReply {
		return
	}
	if r.at == nil {
		r.at = map[uint64]int{}
	}
	e := reply{unique, append([]byte(nil), message...)}
	if len(r.ring) < maxReplies {
		r.ring = append(r.ring, e)
		r.at[unique] = len(r.ring) - 1
		return
	}
	if r.at[r.ring[r.next].Unique] == r.next {
		delete(r.at, r.ring[r.next].Unique)
	}
	r.ring[r.next], r.at[unique] = e, r.next
	r.next = (r.next + 1) % maxReplies
}

func (r *replies) find(unique uint64) []byte {
	i, ok := r.at[unique]
	if !ok {
		return nil
	}
	return r.ring[i].Message
}

// oldest returns the answers in order.
func (r *replies) oldest() []reply {
	return append(append([]reply(nil), r.ring[r.next:]...), r.ring[:r.next]...)
}
