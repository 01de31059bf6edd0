package cli

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestALongJobInAPipeIsNeverSilentForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text lockedText
		p := newSteps(&text, false, "building")
		lines := func() int { return strings.Count(text.String(), "\n") }
		<-time.After(quietInPipe - time.Millisecond)
		if lines() != 0 {
			t.Errorf("said too early: %q", text.String())
		}
		before := 0
		for at := range 30 {
			if at == 4 {
				p.now("system: unpacking")
			}
			if at == 6 {
				p.now("packing: 10 files")
			}
			<-time.After(silence + lineEvery/2)
			synctest.Wait()
			if now := lines(); now <= before {
				t.Errorf("nothing was said after %q", text.String())
			} else if now > before+5 {
				t.Errorf("too much was said: %q", text.String())
			} else {
				before = now
			}
		}
		p.done()
		<-time.After(time.Hour)
		if lines() != before || !strings.HasPrefix(text.String(), "capsem: building\n") || !strings.Contains(text.String(), "s] packing: 10 files\n") {
			t.Errorf("%q", text.String())
		}
	})
}

func TestWhatIsDoneIsSaidSoonAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text lockedText
		p := newSteps(&text, false, "building")
		for i := range 1000 { // ten seconds
			p.now("step " + strings.Repeat("x", i%7))
			<-time.After(10 * time.Millisecond)
		}
		p.now("the last")
		<-time.After(lineEvery)
		synctest.Wait()
		p.done()
		if n := strings.Count(text.String(), "\n"); n < 4 || n > 6 || !strings.HasSuffix(text.String(), "s] the last\n") {
			t.Errorf("%d lines: %q", n, text.String())
		}
	})
}

func TestAJobThatIsRefusedAtOnceShowsNothing(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var text lockedText
		p := newSteps(&text, terminal, "building")
		p.done()
		if text.String() != "" {
			t.Errorf("terminal %v: %q", terminal, text.String())
		}
	}
}
