package live

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Of RFC 5424: the facility for what is audited, the severities, and how long the fields of a header may be.
const (
	facilityAudit   = 13
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6
	maxHost         = 255
	maxProcID       = 128
	maxMsgID        = 32
	maxSequence     = 1<<31 - 1
)

// syslog makes messages of RFC 5424.
type syslog struct {
	host, version string
	sequence      atomic.Int64
}

// format makes a message of at most about limit bytes. The session is the process, the kind of the event the message's id.
func (s *syslog) format(msg *message, limit int) []byte {
	kind, at, severity := "-", time.Now(), severityInfo
	if e := msg.entry; e != nil {
		kind = e.Kind
		if t, err := time.Parse(time.RFC3339Nano, e.Time); err == nil {
			at = t
		}
		severity = severityOf(e.Kind, e.Fields)
	}
	n := (s.sequence.Add(1)-1)%maxSequence + 1
	head := fmt.Appendf(nil, `<%d>1 %s %s capsem %s %s [origin software="capsem" swVersion="%s"][meta sequenceId="%d"] `,
		facilityAudit*8+severity, at.UTC().Format("2006-01-02T15:04:05.000000Z"), word(s.host, maxHost), word(msg.session, maxProcID), word(kind, maxMsgID), quoted(s.version), n)
	return append(head, withSession(msg, limit-len(head))...)
}

// severityOf is how bad an event is.
func severityOf(kind string, fields map[string]any) int {
	decision, _ := fields["decision"].(string)
	switch {
	case kind == "detection", kind == "drop", kind == "export", decision == "denied":
		return severityWarning
	case decision == "error":
		return severityError
	}
	return severityInfo
}

// word is a field of a header: letters of ASCII that can be printed, or - for none.
func word(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// quoted is the value of a parameter.
func quoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(strings.ToValidUTF8(s, "?"))
}
