package dns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"capsem/core/proto"
)

const bufferSize = 64 << 10

// stream is one stream of a guest being served.
type stream struct {
	server  *Server
	out     *bufio.Writer
	replies chan proto.DNSReply
	// broken is closed when nothing can be written any more.
	broken   chan struct{}
	writeErr error
}

// Serve answers the lookups that arrive on a stream, in any order, until the guest ends it (nil), sends what is no lookup, or ctx ends.
// It closes the stream and returns when all that it began is over. A VM may have several.
func (s *Server) Serve(ctx context.Context, rw io.ReadWriteCloser) error {
	defer rw.Close()
	defer s.events.flush()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer stop()
	st := &stream{server: s, out: bufio.NewWriterSize(rw, bufferSize), replies: make(chan proto.DNSReply, 64), broken: make(chan struct{})}
	var writer, lookups sync.WaitGroup
	writer.Go(func() {
		if st.writeErr = st.write(); st.writeErr != nil {
			cancel(st.writeErr)
		}
		close(st.broken)
	})
	err := st.read(ctx, bufio.NewReaderSize(rw, bufferSize), &lookups)
	if err != nil {
		cancel(err)
	}
	lookups.Wait()
	close(st.replies)
	writer.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("serve names: %w", context.Cause(ctx))
	case st.writeErr != nil:
		return fmt.Errorf("serve names: %w", st.writeErr)
	}
	return nil
}

// read takes lookups as long as there are slots for them; while there are none the guest waits.
func (st *stream) read(ctx context.Context, in io.Reader, lookups *sync.WaitGroup) error {
	slots := st.server.slots
	for {
		q := new(proto.DNSQuery)
		if err := next(in, q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		lookups.Go(func() {
			defer func() { <-slots }()
			reply := proto.DNSReply{ID: q.ID, Message: st.server.handle(ctx, q)}
			select {
			case st.replies <- reply:
			case <-st.broken:
			}
		})
	}
}

func next(in io.Reader, q *proto.DNSQuery) error {
	if err := proto.ReadFrame(in, proto.MaxFrame, q); err != nil {
		return err //nolint:wrapcheck // io.EOF is told apart
	}
	return q.Validate() //nolint:wrapcheck // says what it is about
}

// write sends replies, many at once when there are many.
func (st *stream) write() error {
	for reply := range st.replies {
		if err := proto.WriteFrame(st.out, &reply); err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		if len(st.replies) > 0 {
			continue
		}
		if err := st.out.Flush(); err != nil {
			return fmt.Errorf("write replies: %w", err)
		}
	}
	return nil
}
