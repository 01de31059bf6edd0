package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/ledger"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/store"
)

const (
	// sweepPause is the time between two looks at which records need not be kept.
	sweepPause = time.Hour
	// indexTime bounds one change of the index.
	indexTime = time.Minute
	// maxIndexJobs is how many changes of the index may wait.
	maxIndexJobs = 4096
)

// records is the index over all sessions. Changes wait in a queue: no start of a VM waits for the disk on their account. Those that
// a death of the service loses are made up for by the next.
type records struct {
	home  paths.Home
	index *ledger.Index
	queue chan func(ctx context.Context) error
	// follow has a session's record sent to the targets of exports.
	follow func(session string)
}

// openRecords opens the index. One that is damaged is moved aside: the records themselves are elsewhere.
func (s *Service) openRecords(ctx context.Context) error {
	home := s.opts.Home
	if err := os.MkdirAll(home.Records(), 0o700); err != nil {
		return fmt.Errorf("open index of records: %w", err)
	}
	path := home.RecordIndex()
	index, err := ledger.OpenIndex(ctx, path)
	if store.Damaged(err) {
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102-150405")
		s.notice("the index of records is damaged; it is moved aside", "to", aside, "error", err)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("move a damaged index aside: %w", err)
			}
		}
		index, err = ledger.OpenIndex(ctx, path)
	}
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	s.records = &records{home: home, index: index, queue: make(chan func(context.Context) error, maxIndexJobs)}
	return nil
}

// keepRecords makes the changes of the index one after another, and removes records that need not be kept, until the service ends.
func (s *Service) keepRecords() {
	r := s.records
	tick := time.NewTicker(sweepPause)
	defer tick.Stop()
	for {
		select {
		case do := <-r.queue:
			s.indexed(do)
		case <-tick.C:
			s.indexed(s.sweepRecords)
		case <-s.ctx.Done():
			for len(r.queue) > 0 {
				s.indexed(<-r.queue)
			}
			s.indexed(r.index.Close)
			return
		}
	}
}

func (s *Service) indexed(do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), indexTime)
	defer cancel()
	if err := do(ctx); err != nil {
		s.log.Warn("cannot keep the index of records", "error", err)
	}
}

// later queues a change of the index.
func (r *records) later(do func(context.Context) error) {
	if r == nil {
		return // the service is only just starting
	}
	select {
	case r.queue <- do:
	default: // thousands wait: the disk is dead, and the next start makes up for it
	}
}

// begun notes the session of a VM that starts. One of the pool is nobody's yet.
func (r *records) begun(spec proto.VMSpec) {
	if spec.Pooled || r == nil {
		return
	}
	r.follow(spec.Session())
	r.later(func(ctx context.Context) error { return r.index.Begin(ctx, sessionOf(&spec)) })
}

func sessionOf(spec *proto.VMSpec) ledger.Session {
	mode := "session"
	if spec.Name != "" {
		mode = "named"
	}
	return ledger.Session{
		ID: spec.Session(), Name: spec.ID, Mode: mode, Created: time.Unix(0, spec.CreatedNS), DiskGB: int64(spec.DiskMB) >> 10,
		RAM: int64(spec.MemoryMB) << 20, RootfsVersion: spec.AssetVersion, ForkedFrom: spec.Image, Persistent: spec.Name != "",
	}
}

// over notes how a run of a VM ended. A VM of the pool that nobody had leaves no record.
func (r *records) over(spec proto.VMSpec, to lifecycle.State) {
	if r == nil {
		return
	}
	id := spec.Session()
	if spec.Pooled {
		r.later(func(context.Context) error { return os.RemoveAll(r.home.Record(id)) })
		return
	}
	status := ledger.Stopped
	if to == lifecycle.Defunct {
		status = ledger.Crashed
	}
	at := time.Now()
	r.later(func(ctx context.Context) error { return r.index.Finish(ctx, id, status, r.home.RecordDB(id), at) })
}

// reconcile makes up for what a service that died did not note: which sessions have a VM that runs, and which do not.
func (s *Service) reconcileRecords(ctx context.Context) error {
	r := s.records
	states := map[string]lifecycle.State{}
	for _, v := range s.all() {
		w := v.view()
		id := w.spec.Session()
		_, err := r.index.Session(ctx, id)
		switch states[id] = w.state; {
		case w.spec.Pooled, err == nil && w.life == nil:
			continue
		case err != nil && !fault.Is(err, fault.NotFound):
			return err //nolint:wrapcheck // says what it did
		}
		if err := r.index.Begin(ctx, sessionOf(&w.spec)); err != nil {
			return err //nolint:wrapcheck // says what it did
		}
	}
	known, err := r.index.Sessions(ctx, ledger.Running, ledger.MaxPage)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	for _, old := range known {
		state := states[old.ID]
		if lifecycle.Live(state) {
			continue
		}
		status := ledger.Crashed
		if state == lifecycle.Stopped || state == lifecycle.Suspended {
			status = ledger.Stopped
		}
		err = errors.Join(err, r.index.Finish(ctx, old.ID, status, r.home.RecordDB(old.ID), time.Now()))
	}
	return err
}

// sweepRecords removes the records that the settings do not keep.
func (s *Service) sweepRecords(ctx context.Context) error {
	set, err := s.opts.Settings()
	if err != nil {
		return err
	}
	busy := map[string]bool{}
	for _, v := range s.all() {
		w := v.view()
		busy[w.spec.Session()] = true
	}
	gone, err := s.records.index.Sweep(ctx, s.opts.Home.Records(), retention(set), time.Now(), func(id string) bool { return busy[id] })
	for _, g := range gone {
		s.log.Info("removed a record", "session", g.Session, "bytes", g.Bytes, "why", g.Why)
	}
	return err //nolint:wrapcheck // says what it did
}

func retention(set *config.Settings) ledger.Retention {
	const day = 24 * time.Hour
	keep := set.VM.Retention
	return ledger.Retention{
		Age: time.Duration(keep.Days) * day, Sessions: keep.Sessions, Bytes: int64(keep.DiskGB) << 30, Terminated: time.Duration(keep.IndexDays) * day,
	}
}

// sessionFor finds the session that a VM's id, its name or a session's own id means: a VM that is there comes first, then the newest
// session of that name.
func (s *Service) sessionFor(ctx context.Context, id string) (string, error) {
	if v, err := s.find(id); err == nil {
		w := v.view()
		return w.spec.Session(), nil
	}
	if one, err := s.records.index.Session(ctx, id); err == nil {
		return one.ID, nil
	}
	all, err := s.records.index.Sessions(ctx, "", ledger.MaxPage)
	if err != nil {
		return "", err //nolint:wrapcheck // says what it did
	}
	for _, one := range all {
		if one.Name == id {
			return one.ID, nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no VM and no session %.80q", id).WithHint("capsem history lists the sessions there are")
}
