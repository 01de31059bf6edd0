package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"capsem/core/store"
)

const (
	// retryFirst and retryMost bound the wait between two tries to write.
	retryFirst, retryMost = 20 * time.Millisecond, time.Second
)

// position is where the chain stands. It moves on only when a transaction was written.
type position struct {
	seq  uint64
	hash Hash
	ids  [tableCount]int64
	// files is the last row of fs_events that a snapshot covers.
	files int64
}

// loop is the one goroutine that writes.
type loop struct {
	w       *Writer
	db      *store.DB
	groups  *groups
	chainer *chainer
	pos     position
	head    Head
	// sideStale: the side file does not hold the last head yet.
	sideStale bool
	// counted is when the counts of what a full record does not keep were written; ending: they have to be now.
	counted time.Time
	ending  bool
	// unsigned: the last try to sign failed, and was logged.
	unsigned bool

	// batch, drops and marks are what the next transaction is for; retry is the wait after one that failed, else 0.
	batch []*entry
	drops []encoded
	marks []*mark
	retry time.Duration
}

func (l *loop) run(ctx context.Context) {
	defer close(l.w.done)
	// Statements are not interrupted: a transaction is short, and given up as a whole.
	write := context.WithoutCancel(ctx)
	linger := time.NewTimer(time.Hour)
	linger.Stop()
	sign := time.NewTicker(l.w.opts.SignEvery)
	defer sign.Stop()
	waiting := false
	for {
		queue := l.w.queue
		if len(l.batch) >= l.w.opts.Batch || l.retry > 0 {
			queue = nil
		}
		now := false
		select {
		case e := <-queue:
			now = l.take(e)
			if !now && !waiting {
				linger.Reset(l.w.opts.Linger)
				waiting = true
			}
		case <-l.w.wake:
			now = l.retry == 0
		case <-linger.C:
			now = true
		case <-sign.C:
			l.keepSigned(write)
			now = l.retry == 0 && l.countDue()
		case <-ctx.Done():
			l.finish(write, ctx.Err())
			return
		}
		if !now {
			continue
		}
		linger.Stop()
		waiting = false
		if !l.commit(write) {
			linger.Reset(l.retry)
			waiting = true
			continue
		}
		if l.answer(write) {
			l.finish(write, nil)
			return
		}
		if l.pos.seq-l.head.Seq >= l.w.opts.SignRows {
			l.keepSigned(write)
		}
	}
}

// take puts an entry and what is behind it into the batch, and reports whether it is time to write.
func (l *loop) take(e *entry) bool {
	now := false
	for {
		if e.mark != nil {
			l.marks = append(l.marks, e.mark)
			l.ending = l.ending || e.mark.stop
			now = true
		} else {
			l.batch = append(l.batch, e)
		}
		if len(l.batch) >= l.w.opts.Batch {
			return true
		}
		select {
		case e = <-l.w.queue:
		default:
			return now
		}
	}
}

// commit writes the batch and the counts of what was lost. When it cannot, everything stays for the next try.
func (l *loop) commit(ctx context.Context) bool {
	if len(l.drops) == 0 {
		lost := l.w.drops.take()
		if l.countDue() {
			lost = append(lost, l.w.over.take()...)
			l.counted = time.Now()
		}
		for _, d := range lost {
			var e entry
			e.add(l.w, d, false)
			l.drops = append(l.drops, e.rows...)
			l.w.opts.Log.Warn("events were lost", slog.String("kind", d.Kind), slog.Int64("count", d.Count), slog.String("why", d.Reason))
		}
	}
	if len(l.batch) == 0 && len(l.drops) == 0 {
		return true
	}
	before := l.pos
	if err := l.groups.transaction(ctx, l.db.Conn(), func(conn driver.ConnPrepareContext) error { return l.fill(ctx, conn) }); err != nil {
		l.pos = before
		l.fail(fmt.Errorf("write record: %w", store.Explain(err, l.db.Path())))
		return false
	}
	l.settle()
	l.measure(ctx)
	return true
}

// settle gives the room of a written batch back.
func (l *loop) settle() {
	rows, size := 0, int64(0)
	for _, e := range l.batch {
		rows += len(e.rows)
		size += e.size
	}
	l.w.written.Add(uint64(rows))
	clear(l.batch)
	l.batch, l.drops = l.batch[:0], nil
	l.recovered()
	l.w.queued.Add(-size)
	poke(l.w.room)
}

// countDue says that it is time to write how much a full record did not keep. Not with every batch: a guest that goes on would fill it
// with such rows.
func (l *loop) countDue() bool {
	return l.w.over.waiting() && (l.ending || time.Since(l.counted) >= l.w.opts.CountEvery)
}

// measure looks whether the record has reached its size.
func (l *loop) measure(ctx context.Context) {
	if l.w.opts.MaxBytes <= 0 || l.w.full.Load() {
		return
	}
	size := int64(0)
	err := l.db.Conn().QueryRowContext(ctx, "SELECT page_count*page_size FROM pragma_page_count(), pragma_page_size()").Scan(&size)
	if err != nil {
		l.w.opts.Log.Warn("the size of the record cannot be read", slog.Any("err", err))
	}
	if size >= l.w.opts.MaxBytes {
		l.w.full.Store(true)
		l.w.opts.Log.Warn("the record has reached its size: file and audit events are only counted from now on", slog.Int64("bytes", size))
	}
}

func (l *loop) fill(ctx context.Context, conn driver.ConnPrepareContext) error {
	for _, e := range l.batch {
		above := int64(0)
		for i := range e.rows {
			row := &e.rows[i]
			if row.child {
				row.values[columnsAt] = above
			}
			if err := l.link(ctx, conn, row); err != nil {
				return err
			}
			if !row.child {
				above = l.pos.ids[row.table]
			}
		}
	}
	for i := range l.drops {
		if err := l.link(ctx, conn, &l.drops[i]); err != nil {
			return err
		}
	}
	return nil
}

// link gives a row its id and its place in the chain.
func (l *loop) link(ctx context.Context, conn driver.ConnPrepareContext, row *encoded) error {
	id := l.pos.ids[row.table] + 1
	row.values[idAt] = id
	if row.table == snapshotTable {
		last := l.pos.ids[fileTable]
		row.values[snapshotStart], row.values[snapshotStop] = nil, nil
		if last > l.pos.files {
			row.values[snapshotStart], row.values[snapshotStop] = l.pos.files+1, last
			l.pos.files = last
		}
	}
	hash, err := l.chainer.next(&l.pos.hash, row.values)
	if err != nil {
		return err
	}
	l.pos.ids[row.table], l.pos.hash = id, hash
	l.pos.seq++
	if err := l.groups.rows[row.table].add(ctx, conn, row.values[idAt:]...); err != nil {
		return err
	}
	return l.groups.chain.add(ctx, conn, int64(l.pos.seq), row.values[0], id, hash[:]) //nolint:gosec // a count of rows
}

// answer tells those who wait that all is written, and reports whether one of them wants the end.
func (l *loop) answer(ctx context.Context) (stop bool) {
	var signed error
	for _, m := range l.marks {
		if m.seal || m.stop {
			signed = l.sign(ctx)
			break
		}
	}
	for _, m := range l.marks {
		stop = stop || m.stop
		if m.seal {
			m.done <- signed
			continue
		}
		m.done <- nil
	}
	clear(l.marks)
	l.marks = l.marks[:0]
	return stop
}

func (l *loop) fail(err error) {
	if l.w.failing.Swap(&err) == nil {
		l.w.opts.Log.Error("the record cannot be written; trying again", slog.Any("err", err))
	}
	l.retry = min(max(2*l.retry, retryFirst), retryMost)
}

func (l *loop) recovered() {
	l.retry = 0
	if l.w.failing.Swap(nil) != nil {
		l.w.opts.Log.Info("the record can be written again")
	}
}

// drain is the last try: the disk may have room again.
func (l *loop) drain(ctx context.Context) bool {
	for l.commit(ctx) {
		select {
		case e := <-l.w.queue:
			l.take(e)
		default:
			return true
		}
	}
	return false
}

// finish signs and closes. given is why it had to end early, if so.
func (l *loop) finish(ctx context.Context, given error) {
	var lost error
	l.ending = true
	if given != nil && !l.drain(ctx) {
		lost = fmt.Errorf("close record: %d rows were not written: %w", l.w.accepted.Load()-l.w.written.Load(), errors.Join(given, l.w.Err()))
	}
	l.w.final = errors.Join(lost, l.sign(ctx), l.groups.close(), l.db.Close(ctx))
	if l.w.final == nil {
		l.w.final = sealFile(l.db.Path(), &l.head, l.w.opts.Key)
	}
	for _, m := range l.marks {
		m.done <- l.w.final
	}
}
