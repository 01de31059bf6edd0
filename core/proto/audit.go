package proto

import (
	"errors"
	"unicode/utf8"
)

// Bounds of audit records.
const (
	// MaxAuditRecords is the most records in one batch.
	MaxAuditRecords = 64
	// MaxAuditText bounds each path and command line of a record, in bytes.
	MaxAuditText = 2 << 10
)

// AuditRecord is one program that was started in the guest, as its kernel reports it.
type AuditRecord struct {
	// Serial is the kernel's number of the event, TimeNS when it was, since 1970.
	Serial uint64 `cbor:"serial"`
	TimeNS int64  `cbor:"time_ns"`
	// PID, PPID, UID and Session are the process's.
	PID     int32  `cbor:"pid"`
	PPID    int32  `cbor:"ppid"`
	UID     uint32 `cbor:"uid"`
	Session uint32 `cbor:"session,omitempty"`
	// Exe is the program's path, Comm its short name, Argv its arguments with spaces between, Cwd where it was started, TTY its terminal.
	Exe  string `cbor:"exe"`
	Comm string `cbor:"comm"`
	Argv string `cbor:"argv"`
	Cwd  string `cbor:"cwd"`
	TTY  string `cbor:"tty,omitempty"`
	// Exit is the system call's result: 0, or a negative error number.
	Exit int32 `cbor:"exit"`
}

// AuditBatch is one frame on PortAudit, after the stream header: records in order.
type AuditBatch struct {
	Records []AuditRecord `cbor:"records"`
	// Lost counts records that the kernel or the agent could not keep, since the last batch.
	Lost uint64 `cbor:"lost,omitempty"`
}

// Validate bounds every field.
func (b *AuditBatch) Validate() error {
	if len(b.Records) > MaxAuditRecords {
		return errors.New("audit: too many records")
	}
	for i := range b.Records {
		r := &b.Records[i]
		for _, text := range []string{r.Exe, r.Comm, r.Argv, r.Cwd, r.TTY} {
			if len(text) > MaxAuditText || !utf8.ValidString(text) {
				return errors.New("audit: a field is too long or not UTF-8 text")
			}
		}
	}
	return nil
}
