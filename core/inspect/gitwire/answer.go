package gitwire

import (
	"fmt"
	"strings"
)

// Advertisement is an answer to info/refs with an error that git shows, in either protocol.
func Advertisement(service, message string) []byte {
	b := AppendPacket(nil, "# service="+service+"\n")
	return AppendPacket(AppendFlush(b), "ERR "+line(message)+"\n")
}

// Error is an answer of git-upload-pack that is an error.
func Error(message string) []byte { return AppendPacket(nil, "ERR "+line(message)+"\n") }

// Refused is the answer to a push none of which was taken: a reason for each ref, and a message for all of them. It has the form that the
// client has asked for.
func Refused(p *Push, message string, reason func(c *Command) string) []byte {
	var report []byte
	if len(p.Commands) > 0 && (p.Has("report-status") || p.Has("report-status-v2")) {
		report = AppendPacket(nil, "unpack ok\n")
		for i := range p.Commands {
			report = AppendPacket(report, fmt.Sprintf("ng %s %s\n", p.Commands[i].Ref, line(reason(&p.Commands[i]))))
		}
		report = AppendFlush(report)
	}
	if !p.Has("side-band-64k") && !p.Has("side-band") {
		if report == nil {
			return Error(message)
		}
		return report
	}
	said := []byte(line(message) + "\n")
	if report == nil {
		return AppendFlush(AppendBand(nil, 3, said))
	}
	return AppendFlush(AppendBand(AppendBand(nil, 2, said), 1, report))
}

// line makes one line of bounded length of a message.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 2000)]
}
