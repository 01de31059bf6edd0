//go:build linux

// Package stage times the steps of the guest's boot and hands the record from PID 1 to the agent.
package stage

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

// Report is what PID 1 leaves for the agent.
type Report struct {
	// Stages are the timed steps, in order.
	Stages []proto.BootStage `json:"stages"`
	// Failed lists steps that went wrong without being fatal, one plain line each.
	Failed []string `json:"failed,omitempty"`
	// ReadyNS is when PID 1 was done, in nanoseconds since the kernel started.
	ReadyNS int64 `json:"ready_ns"`
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

// Save writes the record for the agent.
func (t *Timer) Save(path string) error {
	t.report.ReadyNS = int64(t.last)
	b, err := json.Marshal(t.report)
	if err != nil {
		return fmt.Errorf("encode boot report: %w", err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("save boot report: %w", err)
	}
	return nil
}

// Load reads the record; an absent one is empty, for an agent that runs without our PID 1.
func Load(path string) (Report, error) {
	var r Report
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("load boot report: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("load boot report: %w", err)
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
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
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
