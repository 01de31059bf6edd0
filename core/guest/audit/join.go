package audit

import (
	"strings"

	"capsem/core/proto"
)

// maxOpen bounds how many events may be incomplete at once.
const maxOpen = 256

// notFound is ENOENT: a shell or a library tries every directory of PATH, and what is not there is no program.
const notFound = 2

// joiner puts the messages of each event together.
type joiner struct {
	open map[uint64]*event
	// order has the open events, oldest first.
	order []uint64
	// lost counts events that were given up.
	lost uint64
}

// event is what is known so far of the start of a program.
type event struct {
	record  proto.AuditRecord
	argv    strings.Builder
	program bool
}

func newJoiner() *joiner { return &joiner{open: map[uint64]*event{}} }

// take adds one message of the kernel. It returns the record that is complete with it, if one is.
func (j *joiner) take(kind uint16, text string) (proto.AuditRecord, bool) {
	if kind != kindSyscall && kind != kindCwd && kind != kindExecve && kind != kindEnd {
		return proto.AuditRecord{}, false
	}
	serial, at, rest, ok := header(text)
	if !ok {
		return proto.AuditRecord{}, false
	}
	e := j.open[serial]
	if e == nil {
		if kind == kindEnd {
			return proto.AuditRecord{}, false
		}
		e = j.begin(serial)
		e.record.Serial, e.record.TimeNS = serial, at.UnixNano()
	}
	switch kind {
	case kindSyscall:
		syscall(&e.record, rest)
		e.program = true
	case kindExecve:
		arguments(&e.argv, rest)
	case kindCwd:
		fields(rest, func(name, value string) {
			if name == "cwd" {
				e.record.Cwd = decoded(value)
			}
		})
	case kindEnd:
		j.end(serial)
		e.record.Argv = clean(e.argv.String())
		return e.record, e.program && e.record.Exit != -notFound
	}
	return proto.AuditRecord{}, false
}

func (j *joiner) begin(serial uint64) *event {
	if len(j.order) >= maxOpen { // the kernel lost its end
		delete(j.open, j.order[0])
		j.order = j.order[1:]
		j.lost++
	}
	e := &event{}
	j.open[serial] = e
	j.order = append(j.order, serial)
	return e
}

func (j *joiner) end(serial uint64) {
	delete(j.open, serial)
	for i, s := range j.order {
		if s == serial {
			j.order = append(j.order[:i], j.order[i+1:]...)
			return
		}
	}
}
