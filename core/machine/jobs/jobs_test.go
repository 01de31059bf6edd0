package jobs

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/proto"
)

func begin(t *testing.T, s *Store, detached bool, cancel func()) *Job {
	t.Helper()
	j, err := s.Begin("exec", strings.Repeat("x", 500), detached, cancel)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestWaitersGetTheResult(t *testing.T) {
	var s Store
	j := begin(t, &s, true, nil)
	got := make(chan proto.Job)
	for range 3 {
		go func() {
			job, err := s.Wait(t.Context(), j.ID())
			if err != nil {
				t.Error(err)
			}
			got <- job
		}()
	}
	j.Output(proto.KindStdout, []byte("out"))
	j.Output(proto.KindStderr, []byte("error"))
	j.Done(&proto.ExitStatus{Code: 3}, "")
	j.Lost("too late: it has ended")
	for range 3 {
		job := <-got
		if job.State != proto.JobDone || job.Exit.Code != 3 || string(job.Stdout) != "out" || job.StderrBytes != 5 || len(job.What) != 200 || job.Error != "" {
			t.Errorf("got %+v", job)
		}
	}
}

func TestOnlyTheEndOfLongOutputIsKept(t *testing.T) {
	var s Store
	detached, attached := begin(t, &s, true, nil), begin(t, &s, false, nil)
	for i := range 100 {
		chunk := bytes.Repeat([]byte{byte(i)}, 10000)
		detached.Output(proto.KindStdout, chunk)
		attached.Output(proto.KindStdout, chunk)
	}
	job, err := s.Get(detached.ID())
	if err != nil || len(job.Stdout) != TailBytes || job.Stdout[TailBytes-1] != 99 || job.StdoutBytes != 1_000_000 {
		t.Errorf("%d bytes kept of %d, %v", len(job.Stdout), job.StdoutBytes, err)
	}
	if job, _ := s.Get(attached.ID()); len(job.Stdout) != 0 || job.StdoutBytes != 1_000_000 {
		t.Errorf("%d bytes kept of what its client has", len(job.Stdout))
	}
	if held := cap(detached.stdout); held > 8*TailBytes {
		t.Errorf("%d bytes are held", held)
	}
}

func TestTheStoreIsBounded(t *testing.T) {
	var s Store
	var all []*Job
	for range MaxRunning {
		all = append(all, begin(t, &s, false, nil))
	}
	if _, err := s.Begin("exec", "one more", false, nil); !fault.Is(err, fault.LimitReached) {
		t.Errorf("one more than allowed: %v", err)
	}
	for _, j := range all {
		j.Done(nil, "")
	}
	list := s.List()
	if len(list) != MaxEnded || list[0].ID != all[MaxRunning-1].ID() {
		t.Errorf("%d are remembered, the newest is %s", len(list), list[0].ID)
	}
	if _, err := s.Get(all[0].ID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("the oldest is still there: %v", err)
	}
}

func TestCancelAsksOnceAndIsSeen(t *testing.T) {
	var s Store
	asked := 0
	j := begin(t, &s, false, func() { asked++ })
	for range 2 {
		if err := s.Cancel(j.ID()); err != nil {
			t.Fatal(err)
		}
	}
	j.Lost("the link broke")
	job, err := s.Wait(t.Context(), j.ID())
	if err != nil || asked != 1 || job.Error != "cancelled" {
		t.Errorf("asked %d times, job %+v, %v", asked, job, err)
	}
	if err := s.Cancel("j999"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown job: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Wait(ctx, begin(t, &s, false, nil).ID()); err == nil {
		t.Error("a wait that was given up succeeds")
	}
}
