package share

import (
	"testing"
	"time"
)

func TestCreditStaysAwayLongerEachTimeThatAWriteFailsLate(t *testing.T) {
	t.Parallel()
	s := &Server{}
	last := int64(0)
	for n := range 2 * maxDoubled {
		s.failedLate()
		s.failedLate() // it was under way with the other
		left := s.noCreditUntil.Load() - time.Now().UnixNano()
		if n <= maxDoubled && left < last*3/2 || left > int64(noCreditFor)<<maxDoubled || s.creditNow() != 0 {
			t.Fatalf("after %d failures %s without credit", n+1, time.Duration(left))
		}
		last = left
		s.noCreditUntil.Store(0)
	}
}
