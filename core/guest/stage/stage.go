//go:build linux

// Package stage times the steps of the guest's boot and hands the record from PID 1 to the agent.
package stage

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

// Report is what PID 1 leaves for the agent.
type Report struct {
	// Stages are the timed steps, in order.
	Stages []proto.BootStage
	// Failed lists steps that went wrong without being fatal, one plain line each.
	Failed []string
	// ReadyNS is when PID 1 was done, in nanoseconds since the kernel started.
	ReadyNS int64
}

// Timer collects a Report.
type Timer struct {
	report Report
	last   time.Duration
}

// SinceBoot is the time since the kernel started, sleep included.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// NewTimer starts timing; the time that has passed since the kernel started is the stage "kernel".
func NewTimer() *Timer {
	t := &Timer{}
	t.Mark("kernel")
	return t
}

// Mark ends a stage that began where the one before ended.
func (t *Timer) Mark(name string) {
	now := SinceBoot()
	if len(t.report.Stages) < proto.MaxBootStages-2 { // the agent adds its own
		t.report.Stages = append(t.report.Stages, proto.BootStage{Name: name, DurationUS: clamp(now - t.last)})
	}
	t.last = now
}

func clamp(d time.Duration) int64 { return min(max(d.Microseconds(), 0), proto.MaxStageUS) }

// Fail notes a step that went wrong without being fatal.
func (t *Timer) Fail(step string, err error) {
	if len(t.report.Failed) < proto.MaxBootStages {
		t.report.Failed = append(t.report.Failed, Plain(step+": "+err.Error()))
	}
}

// Failed lists what went wrong so far.
func (t *Timer) Failed() []string { return t.report.Failed }

// Save writes the record for the agent, as lines of words: PID 1 should not need a codec for it.
func (t *Timer) Save(path string) error {
	b := fmt.Appendf(nil, "ready %d\n", int64(t.last))
	for _, s := range t.report.Stages {
		b = fmt.Appendf(b, "stage %s %d\n", s.Name, s.DurationUS)
	}
	for _, f := range t.report.Failed {
		b = fmt.Appendf(b, "failed %s\n", f)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("save boot report: %w", err)
	}
	return nil
}

// Load reads the record; an absent one is empty, for an agent that runs without our PID 1.
func Load(path string) (Report, error) {
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("load boot report: %w", err)
	}
	return Parse(string(b))
}

// Parse reads what Save has written, within the limits of proto.
func Parse(text string) (Report, error) {
	var r Report
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var err error
		switch key {
		case "ready":
			r.ReadyNS, err = strconv.ParseInt(rest, 10, 64)
		case "stage":
			name, us, _ := strings.Cut(rest, " ")
			s := proto.BootStage{Name: name}
			s.DurationUS, err = strconv.ParseInt(us, 10, 64)
			r.Stages = append(r.Stages, s)
		case "failed":
			r.Failed = append(r.Failed, Plain(rest))
		default:
			err = fmt.Errorf("unknown line %.20q", key)
		}
		if err != nil {
			return Report{}, fmt.Errorf("parse boot report: %w", err)
		}
	}
	if len(r.Stages) > proto.MaxBootStages || len(r.Failed) > proto.MaxBootStages {
		return Report{}, errors.New("parse boot report: too many lines")
	}
	return r, nil
}

// WithAgent returns the stages with one more: from the end of PID 1's work until now.
func (r Report) WithAgent() []proto.BootStage {
	if r.ReadyNS == 0 {
		return r.Stages
	}
	n := min(len(r.Stages), proto.MaxBootStages-1)
	took := clamp(SinceBoot() - time.Duration(r.ReadyNS))
	return append(r.Stages[:n:n], proto.BootStage{Name: "agent", DurationUS: took})
}

// Plain makes text fit for BootReady.Failed: one printable line of at most 200 bytes.
func Plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == '\uFFFD' {
			return ' '
		}
		return r
	}, text)
	for i := range text {
		if i > 196 {
			return text[:i]
		}
	}
	return text
}
