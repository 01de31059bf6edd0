package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/ledger"
	"capsem/core/share"
	"capsem/core/store"
)

// closeRecordTime bounds writing out what is left of the record when the VM has ended.
const closeRecordTime = 30 * time.Second

// openRecord opens the record of the VM's session, or begins it. One that was changed by others or is damaged is set aside: it
// stays as evidence, and the VM gets a new one that says so.
func (w *Worker) openRecord(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	session := w.spec.Session()
	if err := os.MkdirAll(w.cfg.Home.Record(session), 0o700); err != nil {
		return fmt.Errorf("open record: %w", err)
	}
	key, err := ledger.LoadOrCreateKey(w.cfg.Home.RecordKey())
	if err != nil {
		return fmt.Errorf("open record: %w", err)
	}
	path, opts := w.cfg.Home.RecordDB(session), ledger.Options{
		Session: session, Key: key, Log: w.log, MaxBytes: int64(w.spec.RecordMaxMB) << 20,
	}
	w.ledger, err = ledger.Open(ctx, path, opts)
	aside := ""
	if errors.Is(err, ledger.ErrTampered) || store.Damaged(err) {
		why := err
		if aside, err = ledger.SetAside(path, time.Now()); err == nil {
			w.log.Error("the record of this VM was changed or is damaged; it is set aside and a new one begins", "old", aside, "error", why)
			w.ledger, err = ledger.Open(ctx, path, opts)
		}
	}
	if err != nil {
		return fault.Wrap(full(err, "no space left to record what VM %s does", w.spec.ID), fault.Unavailable, "what VM %s does cannot be recorded: %s", w.spec.ID, fault.Line(err)).
			WithHint("look at %s", path)
	}
	if w.ledger.Unclosed() {
		w.note("record-unclosed", "the run before ended without an end: requests that were under way then have no row", 0)
	}
	if aside != "" {
		w.note("record-set-aside", "the one before was changed by others or damaged: "+aside, 0)
	}
	return nil
}

func (w *Worker) closeRecord(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeRecordTime)
	defer cancel()
	if err := w.ledger.Close(ctx); err != nil {
		return fmt.Errorf("close record: %w", err)
	}
	return nil
}

// record adds a row to the record of the session; a template that is being made has none.
func (w *Worker) record(row ledger.Row) {
	if w.ledger != nil {
		w.ledger.Record(row)
	}
}

// note records a step in the VM's life.
func (w *Worker) note(event, detail string, took time.Duration) {
	w.record(ledger.Lifecycle{Time: time.Now(), Event: event, Detail: detail, Duration: took})
}

// noteStart records how the VM came up.
func (w *Worker) noteStart(took time.Duration) {
	st, _, _ := w.board.get()
	event := "booted"
	switch {
	case w.resuming:
		event = "resumed"
	case st.Warm:
		event = "started from a template"
	}
	w.note(event, "", took)
}

// record records a command that has ended.
func (r *run) record() {
	row := ledger.ExecEvent{
		Time: r.began, ExecID: r.job.ID(), Command: r.command, ExitCode: -1, Duration: time.Since(r.began), Source: "api",
	}
	if job, err := r.worker.jobs.Get(r.job.ID()); err == nil {
		row.StdoutBytes, row.StderrBytes = job.StdoutBytes, job.StderrBytes
		if job.Exit != nil {
			row.ExitCode = job.Exit.Code
		}
	}
	r.worker.record(row)
}

// recordFile records what a guest does to the files of a shared directory.
func (w *Worker) recordFile(tag string) func(share.Event) {
	prefix := ""
	if tag != workspaceTag {
		prefix = tag + ":"
	}
	return func(e share.Event) {
		path := prefix + e.Path
		if e.From != "" {
			path = prefix + e.From + " -> " + path
		}
		w.record(ledger.FileEvent{Time: time.Now(), Action: string(e.Action), Path: strings.ToValidUTF8(path, "\ufffd"), Size: e.Size, PID: int64(e.PID)})
	}
}
