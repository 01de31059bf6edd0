package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// How long a step may take before it is worth a word. A step that is done earlier prints nothing.
const (
	quietOnTerminal = 250 * time.Millisecond
	quietInPipe     = 2 * time.Second
)

func quietness(terminal bool) time.Duration {
	if terminal {
		return quietOnTerminal
	}
	return quietInPipe
}

// step shows on stderr that something slow is going on, until the function it returns is called: a spinner with the time
// on a terminal, one plain line elsewhere.
func (s *session) step(what string) (done func()) {
	return showStep(s.env.Stderr, isTerminal(s.env.Stderr), what)
}

func showStep(w io.Writer, terminal bool, what string) (done func()) {
	over, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		wait := quietness(terminal)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-over:
			return
		case <-timer.C:
		}
		if !terminal {
			fmt.Fprintf(w, "capsem: %s\n", what)
			return
		}
		spin(w, what, over, time.Now().Add(-wait))
	}()
	return func() {
		close(over)
		<-finished
	}
}

// spin draws one line until over is closed, then takes it away.
func spin(w io.Writer, what string, over <-chan struct{}, since time.Time) {
	p := mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond))
	elapsed := func(decor.Statistics) string { return fmt.Sprintf(" %.1f s", time.Since(since).Seconds()) }
	bar := p.New(0, mpb.SpinnerStyle(), mpb.BarWidth(1), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name("capsem: "+what+" ")), mpb.AppendDecorators(decor.Any(elapsed)))
	<-over
	bar.Abort(true)
	p.Wait()
}
