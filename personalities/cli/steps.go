package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// lineEvery is the least time between two plain progress lines about the same thing.
const lineEvery = 5 * time.Second

// steps shows what a long job is doing: one changing line on a terminal, plain lines elsewhere.
type steps struct {
	w     io.Writer
	bar   *mpb.Bar // nil in a pipe
	all   *mpb.Progress
	start time.Time

	mu   sync.Mutex
	text string
	last time.Time
}

func (s *session) steps(what string) *steps {
	p := &steps{w: s.env.Stderr, start: time.Now(), text: what}
	if !isTerminal(s.env.Stderr) {
		fmt.Fprintf(p.w, "capsem: %s\n", what)
		return p
	}
	p.all = mpb.New(mpb.WithOutput(p.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond))
	line := func(decor.Statistics) string {
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Sprintf("%s (%s)", clip(p.text, 70), time.Since(p.start).Round(time.Second))
	}
	p.bar = p.all.New(0, mpb.SpinnerStyle(), mpb.BarWidth(1), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name("capsem: "), decor.Any(line, decor.WCSyncSpaceR)))
	return p
}

func clip(text string, most int) string {
	if r := []rune(clean(text)); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return clean(text)
}

// now says what is being done.
func (p *steps) now(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	if p.bar == nil && time.Since(p.last) >= lineEvery {
		p.last = time.Now()
		fmt.Fprintf(p.w, "capsem: [%3.0fs] %s\n", time.Since(p.start).Seconds(), clip(text, 200))
	}
}

// warn says something that the user should know, and stays.
func (p *steps) warn(text string) {
	line := "capsem: " + clip(text, 500) + "\n"
	if p.all != nil {
		_, _ = p.all.Write([]byte(line)) // above the changing line
		return
	}
	fmt.Fprint(p.w, line)
}

// done takes the changing line away.
func (p *steps) done() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.all.Wait()
	}
}
