// Package jobs is the worker's record of the commands and file operations of its VM: state, result, and who waits for it.
package jobs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"capsem/core/fault"
	"capsem/core/proto"
)

const (
	// MaxRunning bounds jobs at once; MaxEnded is how many ended ones are remembered.
	MaxRunning, MaxEnded = 512, 256
	// TailBytes is how much of each output of a detached command is kept, in bytes.
	TailBytes = 64 << 10
	// maxWhat bounds the description of a job, in bytes.
	maxWhat = 200
)

// Store is the jobs of one VM. The zero Store is empty.
type Store struct {
	mu      sync.Mutex
	last    uint64
	jobs    map[string]*Job
	ended   []string // ids, oldest first
	running int
}

// Job is one entry. Its methods are safe for concurrent use.
type Job struct {
	store *Store
	done  chan struct{}
	// The rest is guarded by store.mu.
	job            proto.Job
	cancel         func()
	cancelled      bool
	stdout, stderr []byte
}

// Begin adds a running job. cancel is called, at most once, when somebody wants it to end.
func (s *Store) Begin(kind, what string, detached bool, cancel func()) (*Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running >= MaxRunning {
		return nil, fault.New(fault.LimitReached, "%d commands and file operations run in this VM already", s.running).
			WithHint("wait for some to end, or cancel some: capsem jobs")
	}
	s.last++
	s.running++
	j := &Job{store: s, done: make(chan struct{}), cancel: cancel, job: proto.Job{
		ID: "j" + strconv.FormatUint(s.last, 10), Kind: kind, What: strings.ToValidUTF8(what[:min(len(what), maxWhat)], ""), State: proto.JobRunning,
		StartedNS: time.Now().UnixNano(), Detached: detached,
	}}
	if s.jobs == nil {
		s.jobs = map[string]*Job{}
	}
	s.jobs[j.job.ID] = j
	return j, nil
}

// ID names the job.
func (j *Job) ID() string { return j.job.ID }

// Output counts what a command wrote, and keeps the end of it when the job is detached.
func (j *Job) Output(kind proto.Kind, data []byte) {
	j.store.mu.Lock()
	defer j.store.mu.Unlock()
	count, kept := &j.job.StdoutBytes, &j.stdout
	if kind == proto.KindStderr {
		count, kept = &j.job.StderrBytes, &j.stderr
	}
	*count += int64(len(data))
	if j.job.Detached {
		*kept = append(*kept, data...)
		if over := len(*kept) - TailBytes; over > TailBytes { // cut now and then, not at each write
			*kept = append([]byte(nil), (*kept)[over:]...)
		}
	}
}

// Done ends the job with the command's own end; exit is nil for a file operation.
func (j *Job) Done(exit *proto.ExitStatus, failure string) { j.end(proto.JobDone, exit, failure) }

// Lost ends the job without its end being known.
func (j *Job) Lost(why string) { j.end(proto.JobLost, nil, why) }

func (j *Job) end(state proto.JobState, exit *proto.ExitStatus, why string) {
	s := j.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.job.State != proto.JobRunning {
		return
	}
	if state == proto.JobLost && j.cancelled {
		why = "cancelled"
	}
	j.job.State, j.job.Exit, j.job.Error, j.job.EndedNS = state, exit, why, time.Now().UnixNano()
	s.running--
	s.ended = append(s.ended, j.job.ID)
	if len(s.ended) > MaxEnded {
		delete(s.jobs, s.ended[0])
		s.ended = slices.Delete(s.ended, 0, 1)
	}
	close(j.done)
}

// snapshot is the job for others. mu is held.
func (j *Job) snapshot(output bool) proto.Job {
	out := j.job
	if output {
		out.Stdout, out.Stderr = lastOf(j.stdout), lastOf(j.stderr)
	}
	return out
}

func lastOf(b []byte) []byte { return slices.Clone(b[max(0, len(b)-TailBytes):]) }

// List returns all jobs without their output, newest first.
func (s *Store) List() []proto.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]proto.Job, 0, len(s.jobs))
	for _, j := range s.jobs {
		out = append(out, j.snapshot(false))
	}
	slices.SortFunc(out, func(a, b proto.Job) int { return number(b.ID) - number(a.ID) })
	return out
}

func number(id string) int {
	n, _ := strconv.Atoi(id[1:]) // ids are ours
	return n
}

func (s *Store) find(id string) (*Job, error) {
	if j := s.jobs[id]; j != nil {
		return j, nil
	}
	return nil, fault.New(fault.NotFound, "there is no job %.70q in this VM", id).WithHint("see capsem jobs VM")
}

// Get returns one job with the kept end of its output.
func (s *Store) Get(id string) (proto.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.find(id)
	if err != nil {
		return proto.Job{}, err
	}
	return j.snapshot(true), nil
}

// Wait returns a job once it has ended.
func (s *Store) Wait(ctx context.Context, id string) (proto.Job, error) {
	s.mu.Lock()
	j, err := s.find(id)
	s.mu.Unlock()
	if err != nil {
		return proto.Job{}, err
	}
	select {
	case <-j.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		return j.snapshot(true), nil
	case <-ctx.Done():
		return proto.Job{}, fmt.Errorf("wait for job: %w", context.Cause(ctx))
	}
}

// Cancel asks a job to end. One that has ended is left as it is.
func (s *Store) Cancel(id string) error {
	s.mu.Lock()
	j, err := s.find(id)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	again := j.cancelled || j.job.State != proto.JobRunning
	j.cancelled = true
	s.mu.Unlock()
	if !again && j.cancel != nil {
		j.cancel()
	}
	return nil
}
