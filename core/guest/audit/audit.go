//go:build linux

package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

const (
	// linger is how long reports gather before they are read: a build starts thousands of programs, and each wake-up costs.
	linger = 100 * time.Millisecond
	// maxQueued is how many records wait for a host.
	maxQueued = 4096
	// countEvery is how often the kernel is asked how much it has lost, while there are reports.
	countEvery = 10 * time.Second
	// retryPause is the pause before the host is asked again that does not take reports.
	retryPause = time.Second
)

// Reporter sends the kernel's reports to the host.
type Reporter struct {
	// Dial opens a stream to the host's PortAudit, in the session that is up or the next.
	Dial func(context.Context) (io.WriteCloser, error)
	// Log receives what goes wrong.
	Log *slog.Logger
}

// Run has the kernel report until ctx ends.
func (r Reporter) Run(ctx context.Context) error {
	k, err := open()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = k.file.Close() })
	defer stop()
	queue := make(chan proto.AuditBatch, maxQueued/proto.MaxAuditRecords)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		r.send(ctx, queue)
	}()
	err = r.read(ctx, k, queue)
	close(queue)
	<-sent
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, k.file.Close())
}

// read puts batches of records into the queue.
func (r Reporter) read(ctx context.Context, k *kernel, queue chan<- proto.AuditBatch) error {
	b := &batcher{events: newJoiner(), counted: time.Now()}
	buf := make([]byte, maxMessage)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		if err := b.take(k.next(buf)); err != nil {
			return fmt.Errorf("read audit: %w", err)
		}
		more := k.more()
		if more && len(b.batch.Records) < proto.MaxAuditRecords {
			continue
		}
		b.flush(queue)
		if more {
			continue
		}
		if time.Since(b.counted) > countEvery {
			b.counted = time.Now()
			if err := k.send(unix.AUDIT_GET, unix.NLM_F_REQUEST, nil); err != nil {
				r.Log.Debug("audit: ask for what was lost", "err", err)
			}
		}
		timer.Reset(linger)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// batcher gathers records.
type batcher struct {
	events *joiner
	batch  proto.AuditBatch
	// lost is what the kernel said last of how much it has lost, and counted when it was asked.
	lost    uint32
	known   bool
	counted time.Time
}

// take takes what the kernel's socket gave.
func (b *batcher) take(kind uint16, body []byte, err error) error {
	switch {
	case errors.Is(err, unix.ENOBUFS):
		b.batch.Lost++ // at least one
	case errors.Is(err, unix.EBADMSG):
	case err != nil:
		return err
	case kind == unix.AUDIT_GET && len(body) >= statusBytes:
		if lost := lostOf(body); lost != b.lost || !b.known {
			if b.known {
				b.batch.Lost += uint64(lost - b.lost)
			}
			b.lost, b.known = lost, true
		}
	default:
		if record, ok := b.events.take(kind, string(body)); ok {
			b.batch.Records = append(b.batch.Records, record)
		}
	}
	return nil
}

// flush puts what there is into the queue. Where no host takes it, it is counted as lost.
func (b *batcher) flush(queue chan<- proto.AuditBatch) {
	b.batch.Lost += b.events.lost
	b.events.lost = 0
	if len(b.batch.Records) == 0 && b.batch.Lost == 0 {
		return
	}
	select {
	case queue <- b.batch:
		b.batch = proto.AuditBatch{}
	default:
		b.batch = proto.AuditBatch{Lost: b.batch.Lost + uint64(len(b.batch.Records))}
	}
}

// more reports whether another message waits already.
func (k *kernel) more() bool {
	raw, err := k.file.SyscallConn()
	if err != nil {
		return false
	}
	ready := false
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
		ready = err == nil && n == 1
	})
	return ready
}

// send sends batches, each again until a host has taken it.
func (r Reporter) send(ctx context.Context, queue <-chan proto.AuditBatch) {
	var stream io.WriteCloser
	defer func() {
		if stream != nil {
			_ = stream.Close()
		}
	}()
	for batch := range queue {
		for ctx.Err() == nil {
			if stream == nil {
				var err error
				if stream, err = r.Dial(ctx); err != nil {
					stream = nil
					pause(ctx, retryPause)
					continue
				}
			}
			err := proto.WriteFrame(stream, batch)
			if err == nil {
				break
			}
			r.Log.Debug("audit: the host's stream broke", "err", err)
			_ = stream.Close()
			stream = nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
