package mcptools

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"capsem/core/client"
	"capsem/core/fault"
)

const (
	// maxLog bounds what of a log is in an answer, and maxServiceLog what is read of the service's, in bytes.
	maxLog        = 64 << 10
	maxServiceLog = 1 << 20
	// maxPattern bounds a regular expression.
	maxPattern = 1000
)

type logParams struct {
	Grep string `json:"grep,omitempty" jsonschema:"only lines that this regular expression matches (RE2; (?i) for any case)"`
	Tail int    `json:"tail,omitempty" jsonschema:"only the last so many of them"`
}

type vmLogParams struct {
	ID string `json:"id" jsonschema:"the VM's name or id, also of one that failed and is gone"`
	logParams
}

// logText is the lines of a log that were asked for.
type logText struct {
	Logs string `json:"logs"`
	// Lines are in Logs; Matched were asked for.
	Lines     int  `json:"lines"`
	Matched   int  `json:"matched"`
	Truncated bool `json:"truncated,omitempty" jsonschema:"the first lines are left out: narrow it with grep or tail"`
}

func (s *Server) addLogs() {
	add(s, tool{
		name: "capsem_vm_logs", title: "Logs of a VM", does: reads,
		about: "The console of a VM's guest and the log of its worker: why it does not start, or died.",
	}, vmLogs)
	add(s, tool{name: "capsem_service_logs", title: "Log of the service", does: reads, about: "The end of the service's own log."}, serviceLogs)
}

func vmLogs(ctx context.Context, c *call, in vmLogParams) (logText, error) {
	reply, err := c.svc.Logs(ctx, in.ID, 0)
	if err != nil {
		return logText{}, err
	}
	out, err := in.pick(reply.Logs)
	if out.Truncated {
		c.link(vmURI(in.ID, "log/serial"), "console", "what the guest wrote to its console")
		c.link(vmURI(in.ID, "log/process"), "worker", "what the worker logged")
	}
	return out, err
}

func serviceLogs(ctx context.Context, c *call, in logParams) (logText, error) {
	text, err := readServiceLog(ctx, c.svc)
	if err != nil {
		return logText{}, err
	}
	out, err := in.pick(text)
	if out.Truncated {
		c.link(serviceLogURI, "service log", "the end of the service's log")
	}
	return out, err
}

func readServiceLog(ctx context.Context, svc *client.Client) (string, error) {
	body, err := svc.ServiceLogs(ctx)
	if err != nil {
		return "", err //nolint:wrapcheck // a fault
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxServiceLog))
	if err != nil {
		return "", fmt.Errorf("read service log: %w", err)
	}
	return plainUTF8(text), nil
}

// pick chooses the lines that are wanted, the last of them when they are too many.
func (p logParams) pick(text string) (logText, error) {
	var out logText
	if p.Tail < 0 || len(p.Grep) > maxPattern {
		return out, fault.New(fault.OutOfRange, "tail is negative, or grep is longer than %d bytes", maxPattern)
	}
	pattern, err := regexp.Compile(p.Grep)
	if err != nil {
		return out, fault.New(fault.Invalid, "grep is no regular expression: %s", err)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if p.Grep == "" || pattern.MatchString(strings.TrimRight(line, "\r\n")) {
			lines = append(lines, line)
		}
	}
	out.Matched = len(lines)
	if p.Tail > 0 && len(lines) > p.Tail {
		lines = lines[len(lines)-p.Tail:]
	}
	size, from := 0, len(lines)
	for from > 0 && size+len(lines[from-1]) <= maxLog {
		from--
		size += len(lines[from])
	}
	out.Truncated = from > 0
	if from == len(lines) && len(lines) > 0 { // one line that is too long by itself
		last := lines[len(lines)-1]
		out.Logs, out.Lines = plainUTF8([]byte(last[len(last)-maxLog:])), 1
		return out, nil
	}
	out.Logs, out.Lines = strings.Join(lines[from:], ""), len(lines)-from
	return out, nil
}
