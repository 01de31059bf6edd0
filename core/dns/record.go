package dns

import (
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"capsem/core/proto"
)

// maxAnswerText bounds the answer in an event.
const maxAnswerText = 256

// meter bounds the events of lookups that cost a guest nothing. What is left out is counted, apart for what was allowed and what was not,
// so that neither can hide the other.
type meter struct {
	to  Recorder
	now func() time.Time

	mu      sync.Mutex
	limits  [2]*rate.Limiter
	skipped [2]int
	last    [2]Event
}

func newMeter(to Recorder, perSecond, burst int, now func() time.Time) *meter {
	m := &meter{to: to, now: now}
	for i := range m.limits {
		m.limits[i] = rate.NewLimiter(rate.Limit(perSecond), burst)
	}
	return m
}

func (m *meter) add(e Event, always bool) {
	kind := 0
	if e.Decision != Allowed {
		kind = 1
	}
	m.mu.Lock()
	if !always && !m.limits[kind].AllowN(m.now(), 1) {
		m.skipped[kind]++
		m.last[kind] = e
		m.mu.Unlock()
		return
	}
	e.Repeats, m.skipped[kind] = m.skipped[kind], 0
	m.mu.Unlock()
	m.to.RecordDNS(e)
}

// flush records the last of the events that were left out, with the number of those before it.
func (m *meter) flush() {
	for kind := range m.skipped {
		m.mu.Lock()
		n, e := m.skipped[kind], m.last[kind]
		m.skipped[kind] = 0
		m.mu.Unlock()
		if n > 0 {
			e.Repeats = n - 1
			m.to.RecordDNS(e)
		}
	}
}

// record makes the event of a lookup.
func (s *Server) record(start time.Time, in *proto.DNSQuery, q *query, out *outcome, answered bool) {
	e := Event{
		Time: start, Name: out.name, Decision: out.decision, Rule: out.rule, Reason: out.reason, Transport: "udp",
		Process: in.Process, Duration: s.cfg.Now().Sub(start), Answer: describe(out.records),
	}
	if in.TCP {
		e.Transport = "tcp"
	}
	if e.Name == "" {
		e.Name = q.question.Name
	}
	if q.asked {
		e.Type = dns.Type(q.question.Qtype).String()
	}
	if answered {
		e.Code = dns.RcodeToString[out.rcode]
	}
	if out.err != nil {
		e.Error = out.err.Error()
	}
	s.events.add(e, out.fresh)
}

// describe is what records say, without their heads.
func describe(records []dns.RR) string {
	switch len(records) {
	case 0:
		return ""
	case 1:
		if a, ok := records[0].(*dns.A); ok {
			return a.A.String()
		}
	}
	var b strings.Builder
	for _, rr := range records {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		if b.WriteString(strings.TrimPrefix(rr.String(), rr.Header().String())); b.Len() > maxAnswerText {
			return strings.ToValidUTF8(b.String()[:maxAnswerText], "") + "..."
		}
	}
	return b.String()
}
