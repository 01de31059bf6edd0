package dnsproxy

import (
	"testing"
	"time"

	"capsem/core/proto"
)

func TestLongQuestionsAreBoundedInAll(t *testing.T) {
	t.Parallel()
	x := newExchange(0, time.Hour)
	long := append(query(1, "name"), make([]byte, proto.MaxDNSMessage-22)...)
	failures, room := 0, maxBytes/len(long)
	for range room + 3 {
		x.ask(proto.DNSQuery{Message: long}, func([]byte) { failures++ })
	}
	if failures != 3 {
		t.Errorf("%d failed", failures)
	}
	if !x.answered(proto.DNSReply{ID: 1}) || x.answered(proto.DNSReply{ID: 1}) {
		t.Error("one question is not answered once")
	}
	x.ask(proto.DNSQuery{Message: long}, func([]byte) { failures++ })
	if failures != 4 {
		t.Errorf("%d were answered", failures)
	}
	x.fail()
	if x.size != 0 || len(x.waiting) != 0 || x.age.Len() != 0 || x.unsent.Len() != 0 || failures != 4+room {
		t.Errorf("%d bytes, %d questions are left, %d were answered", x.size, len(x.waiting), failures)
	}
}
