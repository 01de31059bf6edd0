package export

import (
	"fmt"
	"strings"
	"time"

	"capsem/core/ledger"
)

// cast writes the commands of a session as an asciicast (version 2), to be watched: each command when it was started, with the beginning of what
// it wrote where that is kept. Terminals themselves are not recorded.
type cast struct {
	out     *output
	session string
	// start is when the first command began, last the time of the event before: times never go back.
	start time.Time
	last  time.Duration
}

func (c *cast) kinds() []string { return []string{"exec"} }
func (c *cast) begin() error    { return nil }
func (c *cast) pause() error    { return nil }

// head writes the first line.
func (c *cast) head(start time.Time) error {
	c.start = start
	return c.out.line(map[string]any{"version": 2, "width": 120, "height": 40, "timestamp": start.Unix(), "title": "capsem " + c.session})
}

func (c *cast) event(e *ledger.Entry) error {
	r := row{e}
	if c.start.IsZero() {
		if err := c.head(r.at()); err != nil {
			return err
		}
	}
	from := r.at().Sub(c.start)
	if err := c.say(from, "\x1b[1m$ "+terminal(r.text("command"))+"\x1b[0m\r\n"); err != nil {
		return err
	}
	var b strings.Builder
	for _, name := range []string{"stdout_preview", "stderr_preview"} {
		if text := r.text(name); text != "" {
			b.WriteString(terminal(text))
			if !strings.HasSuffix(text, "\n") {
				b.WriteString("\r\n")
			}
		}
	}
	if code := r.int("exit_code"); code != 0 {
		fmt.Fprintf(&b, "\x1b[31m[exit %d]\x1b[0m\r\n", code)
	}
	if b.Len() == 0 {
		return nil
	}
	return c.say(from+r.took(), b.String())
}

func (c *cast) say(at time.Duration, text string) error {
	c.last = max(c.last, at)
	return c.out.line([]any{float64(c.last.Microseconds()) / 1e6, "o", text})
}

func (c *cast) end() error {
	if c.start.IsZero() {
		return c.head(time.Unix(0, 0))
	}
	return nil
}

// terminal makes recorded text fit for a terminal: lines end as there, and what a program told its terminal to do is left out.
func terminal(s string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s), "\n", "\r\n")
}
