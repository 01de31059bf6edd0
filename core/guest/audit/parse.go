// Package audit has the guest's kernel report every program that is started, and sends the reports to the host (PortAudit). The
// kernel's rules are locked once set: not even root of the guest can take them back before the next boot.
package audit

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"capsem/core/proto"
)

// The kinds of kernel messages that make up the start of a program (linux/audit.h).
const (
	kindSyscall = 1300
	kindCwd     = 1307
	kindExecve  = 1309
	kindEnd     = 1320
)

// maxArgs bounds the arguments of one program that are looked at.
const maxArgs = 512

// header is "audit(SECONDS.MILLIS:SERIAL): ", with which every message begins.
func header(text string) (serial uint64, at time.Time, rest string, ok bool) {
	text, found := strings.CutPrefix(text, "audit(")
	stamp, rest, ends := strings.Cut(text, "): ")
	if !ends { // an end of event has nothing more
		stamp, ends = strings.CutSuffix(strings.TrimRight(stamp, " \x00"), "):")
	}
	seconds, number, colon := strings.Cut(stamp, ":")
	whole, millis, dot := strings.Cut(seconds, ".")
	if !found || !ends || !colon || !dot {
		return 0, at, "", false
	}
	s, err1 := strconv.ParseInt(whole, 10, 48)
	ms, err2 := strconv.ParseUint(millis, 10, 10)
	serial, err3 := strconv.ParseUint(number, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || s < 0 || ms > 999 {
		return 0, at, "", false
	}
	return serial, time.Unix(s, int64(ms)*int64(time.Millisecond)), rest, true
}

// fields calls f for each name=value of a message. Values are as they stand there.
func fields(text string, f func(name, value string)) {
	for text != "" {
		text = strings.TrimLeft(text, " \x00\n")
		name, rest, found := strings.Cut(text, "=")
		if !found {
			return
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return
			}
			value, text = rest[:end+2], rest[end+2:]
		} else {
			value, text, _ = strings.Cut(rest, " ")
		}
		f(name, strings.TrimRight(value, "\x00\n"))
	}
}

// decoded is a value that a program had a say in: in quotes, or, with odd characters in it, in hexadecimal.
func decoded(value string) string {
	if len(value) >= 2 && value[0] == '"' {
		return clean(value[1 : len(value)-1])
	}
	if value == "(null)" || value == "(none)" {
		return ""
	}
	raw, err := hex.DecodeString(value[:min(len(value), 2*proto.MaxAuditText)&^1])
	if err != nil {
		return clean(value)
	}
	return clean(string(raw))
}

// clean bounds a text and makes it one that can be sent.
func clean(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), proto.MaxAuditText)], "\ufffd")
	s = strings.ReplaceAll(s, "\x00", " ")
	if len(s) <= proto.MaxAuditText {
		return s
	}
	return strings.ToValidUTF8(s[:proto.MaxAuditText], "")
}

// syscall takes the message of the system call itself.
func syscall(r *proto.AuditRecord, text string) {
	number := func(value string, bits int) int64 {
		n, _ := strconv.ParseInt(value, 10, bits) // 0 if the kernel says something else
		return n
	}
	fields(text, func(name, value string) {
		switch name {
		case "exit":
			r.Exit = int32(number(value, 32)) //nolint:gosec // 32 bits
		case "pid":
			r.PID = int32(number(value, 32)) //nolint:gosec // 32 bits
		case "ppid":
			r.PPID = int32(number(value, 32)) //nolint:gosec // 32 bits
		case "uid":
			r.UID = uint32(number(value, 33)) //nolint:gosec // 32 bits, unsigned
		case "ses":
			if n := number(value, 33); n != unset {
				r.Session = uint32(n) //nolint:gosec // 32 bits, unsigned
			}
		case "tty":
			r.TTY = strings.TrimPrefix(decoded(quoted(value)), "(none)")
		case "comm":
			r.Comm = decoded(value)
		case "exe":
			r.Exe = decoded(value)
		}
	})
}

// unset is the number that stands for none.
const unset = 1<<32 - 1

// quoted is for values that are never in quotes nor in hexadecimal.
func quoted(value string) string { return `"` + value + `"` }

// arguments adds the arguments in one message to those so far. A long one comes in pieces: a1_len=9000 a1[0]=... a1[1]=...
func arguments(argv *strings.Builder, text string) {
	fields(text, func(name, value string) {
		if !isArgument(name) || argv.Len() >= proto.MaxAuditText {
			return
		}
		if _, piece, in := strings.Cut(name, "["); argv.Len() > 0 && (!in || piece == "0]") {
			argv.WriteByte(' ')
		}
		argv.WriteString(decoded(value))
	})
}

// isArgument reports whether a field is an argument, or a piece of one: a0, a12, a1[3].
func isArgument(name string) bool {
	number, found := strings.CutPrefix(name, "a")
	number, _, _ = strings.Cut(number, "[")
	n, err := strconv.ParseUint(number, 10, 32)
	return found && err == nil && n < maxArgs
}
