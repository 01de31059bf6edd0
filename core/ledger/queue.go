package ledger

import (
	"sync"
	"time"
)

// entry is what waits in the queue: the rows of one Record, or a mark that somebody waits for.
type entry struct {
	// rows are the row and its children.
	rows []encoded
	size int64
	mark *mark
}

// mark is answered when everything before it is in the database.
type mark struct {
	// seal asks for a signed head as well, stop for the end.
	seal, stop bool
	done       chan error
}

// parent is a row that brings more rows with it.
type parent interface {
	children() []Row
	cut() int64
}

// encode turns a row into an entry. It runs in the caller's goroutine.
func (w *Writer) encode(row Row) *entry {
	e := &entry{rows: make([]encoded, 0, 1)}
	e.add(w, row, false)
	if p, ok := row.(parent); ok {
		for _, child := range p.children() {
			e.add(w, child, true)
		}
		if n := p.cut(); n > 0 {
			w.drops.count(toolTable, n, "too many in one call")
		}
	}
	return e
}

func (e *entry) add(w *Writer, row Row, child bool) {
	t := row.table()
	c := cells{bodies: w.opts.Bodies, headerKey: w.headerKey, values: make([]any, columnsAt, columnsAt+len(tables[t].columns))}
	c.values[0] = tables[t].name
	if (t == netTable || t == dnsTable) && w.full.Load() { // a guest that goes on fills the disk slowly
		c.most = maxShort
	}
	row.encode(&c)
	e.rows = append(e.rows, encoded{t, c.values, child})
	e.size += int64(c.size) + 64
}

// Record puts a row into the queue. When that is full it waits for a short while, then counts the row as lost; the count is
// written as a row of its own as soon as there is room.
func (w *Writer) Record(row Row) {
	var e *entry
	over := w.full.Load() && tables[row.table()].bulk
	if !over {
		e = w.encode(row)
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	switch {
	case over: // the end writes the count; what comes after that nobody reads
		w.over.count(row.table(), 1, "the record has reached its size")
		w.lost.Add(1)
	case w.closed:
		w.lose(e, "after the end")
	case !w.admit(e):
		w.lose(e, "queue full")
	default:
		w.accepted.Add(uint64(len(e.rows)))
	}
}

func (w *Writer) admit(e *entry) bool {
	if w.try(e) {
		return true
	}
	if w.failing.Load() != nil {
		// Waiting would slow everything down for as long as the disk is full.
		return false
	}
	patience := time.NewTimer(w.opts.Patience)
	defer patience.Stop()
	for {
		select {
		case <-w.room:
			if w.try(e) {
				poke(w.room)
				return true
			}
		case <-patience.C:
			return w.try(e)
		}
	}
}

// try puts the entry into the queue if it fits by number and by bytes. One that alone is too big fits into an empty queue.
func (w *Writer) try(e *entry) bool {
	if total := w.queued.Add(e.size); total > w.opts.QueueBytes && total != e.size {
		w.queued.Add(-e.size)
		return false
	}
	select {
	case w.queue <- e:
		return true
	default:
		w.queued.Add(-e.size)
		return false
	}
}

func (w *Writer) lose(e *entry, reason string) {
	for _, row := range e.rows {
		w.drops.count(row.table, 1, reason)
	}
	w.lost.Add(uint64(len(e.rows)))
	poke(w.wake)
}

// poke wakes one waiter, now or when it comes.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drops counts lost rows until they are written down.
type drops struct {
	mu     sync.Mutex
	counts [tableCount]Drop
	any    bool
}

func (d *drops) count(table int, n int64, reason string) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &d.counts[table]
	if c.Count == 0 {
		c.First = now
	}
	c.Kind, c.Reason, c.Last = tables[table].kind, reason, now
	c.Count += n
	d.any = true
}

// waiting reports whether there are counts to be written.
func (d *drops) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.any
}

// take empties the counts into rows.
func (d *drops) take() []Drop {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.any {
		return nil
	}
	var out []Drop
	for i := range d.counts {
		if d.counts[i].Count > 0 {
			out = append(out, d.counts[i])
		}
		d.counts[i] = Drop{}
	}
	d.any = false
	return out
}
