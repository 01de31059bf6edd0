package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// rule says how a limit is to be read.
type rule string

// The rules. The ratio ones compare Median/Baseline.
const (
	AtMost       rule = "at most"
	AtLeast      rule = "at least"
	RatioAtMost  rule = "ratio at most"
	RatioAtLeast rule = "ratio at least"
)

// limit is what a number is held to.
type limit struct {
	Rule  rule    `json:"rule"`
	Value float64 `json:"value"`
}

// row is one measurement.
type row struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// N is the number of samples, Median and P99 are of them.
	N      int     `json:"n"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99,omitempty"`
	// Baseline is the median of what BaselineName says, measured in the same run; 0 without one.
	Baseline     float64 `json:"baseline,omitempty"`
	BaselineName string  `json:"baseline_name,omitempty"`
	Limit        *limit  `json:"limit,omitempty"`
	// Note says what exactly was measured.
	Note string `json:"note,omitempty"`
	// Verdict is ok, OVER or UNDER; empty without a limit.
	Verdict string `json:"verdict,omitempty"`
	// Ratio is Median/Baseline.
	Ratio float64 `json:"ratio,omitempty"`
}

// newRow makes a row of samples.
func newRow(name, unit string, samples []float64) row {
	r := row{Name: name, Unit: unit, N: len(samples), Median: median(samples)}
	if len(samples) >= 20 {
		r.P99 = quantile(samples, 0.99)
	}
	return r
}

// against adds the baseline.
func (r row) against(name string, samples []float64) row {
	r.BaselineName, r.Baseline = name, median(samples)
	return r
}

// held adds a limit.
func (r row) held(rule rule, value float64) row {
	r.Limit = &limit{rule, value}
	return r
}

// noted adds a note.
func (r row) noted(format string, args ...any) row {
	r.Note = fmt.Sprintf(format, args...)
	return r
}

func (r row) ratio() float64 {
	if r.Baseline == 0 {
		return 0
	}
	return r.Median / r.Baseline
}

func (r row) verdict() string {
	if r.Limit == nil {
		return ""
	}
	switch l := *r.Limit; {
	case l.Rule == AtMost && r.Median > l.Value, l.Rule == RatioAtMost && r.ratio() > l.Value:
		return "OVER"
	case l.Rule == AtLeast && r.Median < l.Value, l.Rule == RatioAtLeast && r.ratio() < l.Value:
		return "UNDER"
	}
	return "ok"
}

// report is the whole run, as written to dist/bench/latest.json.
type report struct {
	Time    time.Time   `json:"time"`
	Machine machineInfo `json:"machine"`
	Rows    []row       `json:"rows"`
	// Failed lists benchmarks that could not be run, with why.
	Failed []string `json:"failed,omitempty"`
}

// show writes the table and, below it, the notes.
func (r *report) show(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "\nmeasured\tmedian\tp99\tbaseline\tratio\tlimit\t")
	for i := range r.Rows {
		b := &r.Rows[i]
		fmt.Fprintf(tw, "%s\t%s %s\t%s\t%s\t%s\t%s\t%s\n", b.Name, number(b.Median), b.Unit,
			number(b.P99), number(b.Baseline), number(b.Ratio), b.limitText(), b.Verdict)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	fmt.Fprintln(w)
	for i := range r.Rows {
		if b := &r.Rows[i]; b.Note != "" || b.BaselineName != "" {
			fmt.Fprintf(w, "%s (n=%d): %s%s\n", b.Name, b.N, b.Note, b.baselineText())
		}
	}
	for _, f := range r.Failed {
		fmt.Fprintln(w, "FAILED:", f)
	}
	return nil
}

func (r *row) limitText() string {
	if r.Limit == nil {
		return ""
	}
	return fmt.Sprintf("%s %s", r.Limit.Rule, number(r.Limit.Value))
}

func (r *row) baselineText() string {
	if r.BaselineName == "" {
		return ""
	}
	return " Baseline: " + r.BaselineName + "."
}

// number prints three significant digits; nothing for zero.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// write saves the report as JSON, in one step.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
