package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	// lineEvery is the least time between two plain progress lines about the same thing.
	lineEvery = 5 * time.Second
	// silence is the most: then it is said again what is being done.
	silence = 2 * lineEvery
)

// steps shows what a long job is doing: one changing line on a terminal, plain lines elsewhere. It begins with the first step, or
// when there is none for a while, so that a job that is refused at once shows nothing.
type steps struct {
	w        io.Writer
	terminal bool
	what     string
	start    time.Time
	begin    sync.Once
	bar      *mpb.Bar // nil in a pipe, and before begin
	all      *mpb.Progress

	over chan struct{}
	wg   sync.WaitGroup

	mu sync.Mutex
	// text is what is being done; said what was last said of it, at the time last.
	text, said string
	last       time.Time
}

func (s *session) steps(what string) *steps {
	return newSteps(s.env.Stderr, isTerminal(s.env.Stderr), what)
}

func newSteps(w io.Writer, terminal bool, what string) *steps {
	p := &steps{w: w, terminal: terminal, what: what, text: what, start: time.Now(), over: make(chan struct{})}
	p.wg.Go(p.watch)
	return p
}

// watch begins late when nobody else did, and in a pipe sees to it that something is said from time to time.
func (p *steps) watch() {
	late := time.NewTimer(quietness(p.terminal))
	defer late.Stop()
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.over:
			return
		case <-late.C:
			p.show()
		case <-tick.C:
			p.mu.Lock()
			if since := time.Since(p.last); since >= silence || (since >= lineEvery && p.text != p.said) {
				p.line()
			}
			p.mu.Unlock()
		}
	}
}

// show begins the display.
func (p *steps) show() {
	p.begin.Do(func() {
		if !p.terminal {
			fmt.Fprintf(p.w, "capsem: %s\n", p.what)
			p.mu.Lock()
			p.said, p.last = p.what, time.Now()
			p.mu.Unlock()
			return
		}
		p.all = mpb.New(mpb.WithOutput(p.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond))
		line := func(decor.Statistics) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return fmt.Sprintf("%s (%s)", clip(p.text, 70), time.Since(p.start).Round(time.Second))
		}
		p.bar = p.all.New(0, mpb.SpinnerStyle(), mpb.BarWidth(1), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name("capsem: "), decor.Any(line, decor.WCSyncSpaceR)))
	})
}

// line writes what is being done, in a pipe; the caller holds mu.
func (p *steps) line() {
	if p.terminal || p.last.IsZero() {
		return // not begun
	}
	fmt.Fprintf(p.w, "capsem: [%3.0fs] %s\n", time.Since(p.start).Seconds(), clip(p.text, 200))
	p.said, p.last = p.text, time.Now()
}

func clip(text string, most int) string {
	if r := []rune(clean(text)); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return clean(text)
}

// now says what is being done.
func (p *steps) now(text string) {
	p.show()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	if p.said == p.what || time.Since(p.last) >= lineEvery { // the first step is said at once
		p.line()
	}
}

// warn says something that the user should know, and stays.
func (p *steps) warn(text string) {
	p.show()
	line := "capsem: " + clip(text, 500) + "\n"
	if p.all != nil {
		_, _ = p.all.Write([]byte(line)) // above the changing line
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.w, line)
}

// done takes the changing line away.
func (p *steps) done() {
	close(p.over)
	p.wg.Wait()
	p.begin.Do(func() {}) // nothing begins any more
	if p.bar != nil {
		p.bar.Abort(true)
		p.all.Wait()
	}
}
