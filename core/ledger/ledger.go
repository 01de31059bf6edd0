// Package ledger is the one interface to which every recorded event goes. The session database that keeps them is built
// with the network issue; until then the worker's log is the record.
package ledger

import (
	"log/slog"
	"time"
)

// Event is one thing that happened in or to a VM.
type Event struct {
	// Time is when it began.
	Time time.Time
	// Kind names the event: "boot", "exec", "file", "lifecycle".
	Kind string
	// VM is the id of the VM.
	VM string
	// Attrs are the particulars. Never a secret, never the content of a file or stream.
	Attrs []slog.Attr
}

// Recorder takes events. Record neither blocks for long nor fails the caller.
type Recorder interface {
	Record(Event)
}

// Log is a Recorder that writes each event as one structured log line.
type Log struct {
	// Logger receives the lines.
	Logger *slog.Logger
}

// Record writes the event.
func (l Log) Record(e Event) {
	args := []any{slog.Time("at", e.Time), slog.String("vm", e.VM)}
	for _, a := range e.Attrs {
		args = append(args, a)
	}
	l.Logger.Info("event "+e.Kind, args...)
}
