package dns

import (
	"time"

	"capsem/core/proto"
)

// Decisions of an Event.
const (
	Allowed = "allowed"
	Denied  = "denied"
	Failed  = "error"
)

// Rules of events that no policy made.
const (
	// RuleLocal answers names of the guest itself, RuleReverse refuses addresses that are no stand-ins, RuleProtocol what is no sound question.
	RuleLocal    = "capsem:local-name"
	RuleReverse  = "capsem:reverse-lookup"
	RuleProtocol = "capsem:dns-protocol"
)

// Event is one lookup, for the record.
type Event struct {
	Time time.Time
	// Name is in normal form where it has one, else as it was asked, with escapes. Type is "A" and so on.
	Name, Type string
	// Decision is Allowed, Denied or Failed; Rule and Reason say why.
	Decision, Rule, Reason string
	// Code is the answer's, such as "NXDOMAIN", or empty when there was none; Answer is what it said.
	Code, Answer string
	// Transport is "udp" or "tcp".
	Transport string
	// Process is who asked, as the guest claims.
	Process  proto.ProcessClaim
	Duration time.Duration
	Error    string
	// Repeats is the number of lookups since the last event of this kind that were answered from memory and, being too many, have no
	// event of their own.
	Repeats int
}

// Recorder keeps events. It is called by many goroutines at once; while it waits, the lookup does.
type Recorder interface {
	RecordDNS(e Event)
}
