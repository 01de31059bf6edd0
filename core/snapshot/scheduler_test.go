package snapshot

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
)

// told lets a test wait for each snapshot that a scheduler looks at.
func told(t *testing.T, o *Options) <-chan string {
	t.Helper()
	walks := make(chan string, 100)
	o.before = func(step string) {
		if step == "sync manifests" {
			walks <- step
		}
	}
	return walks
}

func TestTheSchedulerTakesOneAtTheStartAndThenOnlyAfterChanges(t *testing.T) {
	var made <-chan string
	r := newRig(t, func(o *Options) { made = told(t, o) })
	ticks := make(chan time.Time)
	var changed atomic.Bool
	s, err := StartScheduler(context.Background(), r.s, Schedule{Changed: func() bool { return changed.Swap(false) }, ticks: ticks})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	<-made
	_, err = StartScheduler(context.Background(), r.s, Schedule{})
	wantFault(t, err, fault.Conflict, "a scheduler already")
	r.write("f", "not told of")
	ticks <- time.Time{}
	ticks <- time.Time{} // the one before was dealt with
	if n := r.s.counts.walks.Load(); n != 1 {
		t.Errorf("it looked %d times at a workspace in which nothing changed", n)
	}
	changed.Store(true)
	ticks <- time.Time{}
	<-made
	ticks <- time.Time{}
	if l := r.list().Snapshots; len(l) != 2 || l[1].Origin != api.OriginAuto || l[1].FilesCount != 1 {
		t.Errorf("it made %+v", l)
	}
	s.Stop()
	again, err := StartScheduler(context.Background(), r.s, Schedule{})
	if err != nil {
		t.Fatal(err)
	}
	again.Stop()
}

func TestASnapshotThatFailedIsTriedAgainThoughNothingMoreChanged(t *testing.T) {
	var reasons []string
	r := newRig(t, func(o *Options) { o.Missed = func(why string) { reasons = append(reasons, why) } })
	r.s.objects.limit = 0
	r.write("f", "f")
	ticks := make(chan time.Time)
	s, err := StartScheduler(context.Background(), r.s, Schedule{Changed: func() bool { return false }, ticks: ticks})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	ticks <- time.Time{} // after the first, which failed
	ticks <- time.Time{}
	if l := r.list(); l.AutoFailed == "" || !strings.Contains(l.Text(), l.AutoFailed) {
		t.Errorf("nobody is told: %+v", l)
	}
	r.s.objects.mu.Lock()
	r.s.objects.limit = 1 << 20
	r.s.objects.mu.Unlock()
	ticks <- time.Time{}
	ticks <- time.Time{}
	if l := r.list(); len(l.Snapshots) != 1 || l.AutoFailed != "" {
		t.Errorf("it made %+v", l)
	}
	s.Stop()
	if len(reasons) != 1 {
		t.Errorf("told %q", reasons)
	}
}

func TestIntervalsOutOfRangeAreRefused(t *testing.T) {
	r := newRig(t)
	for _, d := range []time.Duration{time.Second, 2 * time.Hour, -1} {
		_, err := StartScheduler(context.Background(), r.s, Schedule{Interval: d})
		wantFault(t, err, fault.OutOfRange, "outside")
	}
}
