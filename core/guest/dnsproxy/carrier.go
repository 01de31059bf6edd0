//go:build linux

package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

const (
	// batch is about how much is written at once.
	batch = 16 << 10
	// firstPause and longestPause are how long to wait after a stream that brought no answer at all.
	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second
)

// carrier brings the lookups of an exchange to the host and their answers back.
type carrier struct {
	links    Links
	log      *slog.Logger
	exchange *exchange
}

// run opens one stream after another until ctx ends; each as soon as there is a lookup to send.
func (c carrier) run(ctx context.Context) {
	pause := firstPause
	for {
		select {
		case <-c.exchange.ready:
		case <-ctx.Done():
			return
		}
		session, err := c.links.Session(ctx)
		if err != nil {
			return
		}
		answers, err := c.stream(ctx, session)
		if ctx.Err() != nil {
			return
		}
		c.log.Debug("dns-proxy: the stream of lookups has ended", "err", err)
		if errors.Is(err, link.ErrRefused) {
			c.exchange.fail() // the host does not answer lookups: waiting would not help
		}
		c.exchange.resend()
		if answers > 0 {
			pause = firstPause
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// stream opens a stream and uses it until it ends. It counts the answers.
func (c carrier) stream(ctx context.Context, session link.Session) (answers int, err error) {
	first, err := c.exchange.take(batch)
	if err != nil || len(first) == 0 {
		return 1, err // they were answered meanwhile
	}
	opening, cancel := context.WithTimeout(ctx, c.exchange.timeout)
	defer cancel()
	st, err := link.OpenWith(opening, session, proto.StreamHeader{Port: proto.PortDNS}, first)
	if err != nil {
		return 0, fmt.Errorf("open stream: %w", err)
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() }) // ends reading and writing
	defer stop()
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(over)
		defer st.Close() // ends writing
		answers, err = c.read(st)
	})
	c.write(st, over)
	wg.Wait()
	return answers, err
}

// write sends lookups as they come until the stream is over.
func (c carrier) write(st link.Stream, over <-chan struct{}) {
	for {
		select {
		case <-c.exchange.ready:
		case <-over:
			signal(c.exchange.ready) // it may have been for the next
			return
		}
		frames, err := c.exchange.take(batch)
		if err == nil && len(frames) > 0 {
			_, err = st.Write(frames)
		}
		if err != nil {
			_ = st.Close() // ends reading
			<-over
			return
		}
	}
}

// read passes on answers until the stream ends or says something else.
func (c carrier) read(st link.Stream) (answers int, err error) {
	for {
		var r proto.DNSReply
		if err := proto.ReadFrame(st, proto.MaxFrame, &r); err != nil {
			return answers, err //nolint:wrapcheck // says what it did
		}
		if err := r.Validate(); err != nil {
			return answers, err //nolint:wrapcheck // says what is wrong
		}
		if c.exchange.answered(r) {
			answers++
		}
	}
}
