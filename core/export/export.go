// Package export writes the record of a session in the forms of other tools: HAR, JSON lines, OCSF, OTLP and asciicast. It reads the record event
// by event and holds little of it. What is exported is what is recorded: credentials were taken out when that was written, and
// contents are there only where the owner has them kept.
package export

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/ledger"
)

// The formats.
const (
	HAR       = "har"
	JSONL     = "jsonl"
	OCSF      = "ocsf"
	OTLP      = "otlp"
	Asciicast = "asciicast"
)

// Formats are the names of all formats.
func Formats() []string { return []string{HAR, JSONL, OCSF, OTLP, Asciicast} }

// Check refuses a format that there is not, or that cannot be followed.
func Check(format string, follow bool) error {
	if follow && slices.Contains([]string{HAR, Asciicast}, format) {
		return fault.New(fault.Invalid, "%s is a file with an end: it cannot be followed", format).WithHint("follow jsonl, ocsf or otlp")
	}
	if slices.Contains(Formats(), format) {
		return nil
	}
	return fault.New(fault.Invalid, "there is no format %.40q", format).WithHint("one of: %s", strings.Join(Formats(), ", "))
}

// MediaType is what a format is called in HTTP.
func MediaType(format string) string {
	switch format {
	case HAR:
		return "application/json"
	case Asciicast:
		return "application/x-asciicast"
	}
	return "application/x-ndjson"
}

// Source is a session's record.
type Source struct {
	// Path is its session.db, Session the session's id.
	Path, Session string
	// Next is called when all that is there was written; while it returns true, what came since is written too. nil ends there. It is for
	// formats that are lines of events.
	Next func() (bool, error)
}

// sink takes events and writes them in a format.
type sink interface {
	// kinds are those it wants, none is all.
	kinds() []string
	begin() error
	event(e *ledger.Entry) error
	// pause writes what it has kept back, before more may come.
	pause() error
	end() error
}

func newSink(format, session string, out *output) (sink, error) {
	switch format {
	case HAR:
		return &har{out: out}, nil
	case JSONL:
		return &lines{out: out}, nil
	case OCSF:
		return &ocsf{out: out, session: session}, nil
	case OTLP:
		return newOTLP(out, session), nil
	case Asciicast:
		return &cast{out: out, session: session}, nil
	}
	return nil, Check(format, false)
}

// Encoder makes lines of the events of one session, in a format that can be followed.
type Encoder struct {
	sink sink
	out  *output
	buf  bytes.Buffer
}

// NewEncoder makes one.
func NewEncoder(format, session string) (*Encoder, error) {
	if err := Check(format, true); err != nil {
		return nil, err
	}
	e := &Encoder{}
	e.out = &output{w: bufio.NewWriter(&e.buf)}
	var err error
	e.sink, err = newSink(format, session, e.out)
	return e, err
}

// Kinds are the kinds of events that it wants, none is all.
func (e *Encoder) Kinds() []string { return e.sink.kinds() }

// Add adds an event.
func (e *Encoder) Add(entry *ledger.Entry) error { return e.sink.event(entry) }

// Lines gives the lines that there are now, without their ends; last says that no event follows. They are good until the next call.
func (e *Encoder) Lines(last bool) ([][]byte, error) {
	end := e.sink.pause
	if last {
		end = e.sink.end
	}
	if err := errors.Join(end(), e.out.w.Flush()); err != nil {
		return nil, err
	}
	var lines [][]byte
	for line := range bytes.Lines(e.buf.Bytes()) {
		lines = append(lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	e.buf.Reset()
	return lines, nil
}

// Write exports a session.
func Write(ctx context.Context, to io.Writer, src Source, format string) error {
	out := &output{w: bufio.NewWriterSize(to, 64<<10)}
	s, err := newSink(format, src.Session, out)
	if err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	next := func() (bool, error) { return false, nil }
	if src.Next != nil {
		next = func() (bool, error) {
			if err := errors.Join(s.pause(), out.w.Flush()); err != nil {
				return false, err
			}
			return src.Next()
		}
	}
	err = ledger.Follow(ctx, src.Path, s.kinds(), next, func(e ledger.Entry) error { return s.event(&e) })
	if err == nil {
		err = s.end()
	}
	return errors.Join(err, out.w.Flush())
}

// output writes JSON.
type output struct{ w *bufio.Writer }

// text writes a text as it is.
func (o *output) text(s string) error {
	_, err := o.w.WriteString(s)
	return err //nolint:wrapcheck // an io.Writer's
}

// value writes a value as JSON, without a line's end.
func (o *output) value(v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = o.w.Write(b)
	}
	return err //nolint:wrapcheck // an io.Writer's
}

// line writes a value as a line of JSON.
func (o *output) line(v any) error {
	if err := o.value(v); err != nil {
		return err
	}
	return o.text("\n")
}

// lines is the record as it is, an event a line.
type lines struct{ out *output }

func (l *lines) kinds() []string             { return nil }
func (l *lines) begin() error                { return nil }
func (l *lines) event(e *ledger.Entry) error { return l.out.line(e) }
func (l *lines) pause() error                { return nil }
func (l *lines) end() error                  { return nil }

// row reads the fields of an event.
type row struct{ *ledger.Entry }

// text is a field that is a text, "" if it is not there.
func (r row) text(name string) string {
	s, _ := r.Fields[name].(string)
	return s
}

// int is a field that is a number, 0 if it is not there.
func (r row) int(name string) int64 {
	n, _ := r.Fields[name].(int64)
	return n
}

// at is when it was.
func (r row) at() time.Time {
	t, err := time.Parse(time.RFC3339Nano, r.Time)
	if err != nil {
		return time.Unix(0, 0).UTC()
	}
	return t.UTC()
}

// took is how long it took.
func (r row) took() time.Duration {
	return time.Duration(max(0, r.int("duration_ms"))) * time.Millisecond
}
