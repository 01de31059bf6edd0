// Package ledger is the record of what a VM did: one database per session, each row chained to the one before by a hash, and
// the head of the chain signed, so that a row that was changed, removed, added or moved afterwards is found. An event that
// could not be kept is itself counted in a row.
package ledger

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Row is one thing to record: NetEvent, DNSEvent, ModelCall, MCPCall, ExecEvent, FileEvent, SnapshotEvent, AuditEvent,
// Approval, Lifecycle or Event.
type Row interface {
	table() int
	encode(c *cells)
}

// Recorder takes rows. Record neither blocks for long nor fails the caller.
type Recorder interface {
	Record(row Row)
}

// Event is anything that happened in or to a VM and has no table of its own; it goes among the lifecycle events.
type Event struct {
	// Time is when it began.
	Time time.Time
	// Kind names the event.
	Kind string
	// VM is the id of the VM.
	VM string
	// Attrs are the particulars. Never a secret, never the content of a file or stream.
	Attrs []slog.Attr
}

func (e Event) table() int { return lifecycleTable }

func (e Event) encode(c *cells) {
	words := make([]string, 0, len(e.Attrs))
	for _, a := range e.Attrs {
		words = append(words, fmt.Sprintf("%s=%v", a.Key, a.Value))
	}
	Lifecycle{Time: e.Time, Event: e.Kind, Detail: strings.Join(words, " ")}.encode(c)
}

// Log is a Recorder that writes each row as one structured log line, without contents.
type Log struct {
	// Logger receives the lines.
	Logger *slog.Logger
}

// Record writes the row.
func (l Log) Record(row Row) {
	if e, ok := row.(Event); ok {
		args := []any{slog.Time("at", e.Time), slog.String("vm", e.VM)}
		for _, a := range e.Attrs {
			args = append(args, a)
		}
		l.Logger.Info("event "+e.Kind, args...)
		return
	}
	t := &tables[row.table()]
	var c cells
	row.encode(&c)
	var args []any
	for i, v := range c.values {
		if v != nil && i < len(t.columns) && !slices.Contains(t.private, t.columns[i]) {
			args = append(args, slog.Any(t.columns[i], v))
		}
	}
	l.Logger.Info("event "+t.kind, args...)
}
