package peer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// maxServing bounds the calls of the other side that are being served, maxServingBytes their parameters together; further ones are refused.
	maxServing, maxServingBytes = 512, 64 << 20
	// stopTime is how long handlers get to end when a Peer is closed.
	stopTime = 10 * time.Second
)

// Handler serves what the other side sends. It must be safe for concurrent use.
type Handler interface {
	// Call serves one call. An *Error goes over as it is, any other error as its text.
	Call(ctx context.Context, method string, params []byte) ([]byte, error)
	// Note takes a note. Notes come one after another, in order.
	Note(method string, params []byte)
}

// Peer is one end. Make it with New.
type Peer struct {
	conn    io.ReadWriteCloser
	handler Handler

	writing sync.Mutex

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *frame
	serving map[uint64]context.CancelFunc
	held    int   // bytes of the parameters of what is being served
	err     error // why it is over
	over    chan struct{}

	notes *queue
	work  sync.WaitGroup
}

// New begins with a connection, which the Peer closes at its end. ctx bounds the handlers, and ends the peer.
func New(ctx context.Context, conn io.ReadWriteCloser, handler Handler) *Peer {
	p := &Peer{
		conn: conn, handler: handler, waiting: map[uint64]chan *frame{}, serving: map[uint64]context.CancelFunc{},
		over: make(chan struct{}), notes: newQueue(),
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { p.end(context.Cause(ctx)) })
	p.work.Go(func() {
		defer cancel()
		defer stop()
		defer p.notes.end()
		p.end(p.read(ctx))
	})
	p.work.Go(func() {
		for f := p.notes.take(); f != nil; f = p.notes.take() {
			p.handler.Note(f.Method, f.Body)
		}
	})
	return p
}

// Over is closed when the connection has ended; Err then says why.
func (p *Peer) Over() <-chan struct{} { return p.over }

// Err says why the peer is over; io.EOF is a clean end by the other side.
func (p *Peer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Close ends it and waits for the handlers, for a bounded time.
func (p *Peer) Close() {
	p.end(errors.New("closed"))
	done := make(chan struct{})
	go func() { p.work.Wait(); close(done) }()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// end closes the connection and fails whatever waits for an answer.
func (p *Peer) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.err = err
	close(p.over)
	p.notes.stop()
	for id, ch := range p.waiting {
		close(ch)
		delete(p.waiting, id)
	}
	_ = p.conn.Close() // there is nobody to tell
}

// Call asks the other side and waits. When ctx ends the other side is told to stop.
func (p *Peer) Call(ctx context.Context, method string, params []byte) ([]byte, error) {
	ch := make(chan *frame, 1)
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return nil, errLost()
	}
	p.next++
	id := p.next
	p.waiting[id] = ch
	p.mu.Unlock()
	if err := p.send(&frame{Kind: call, ID: id, Method: method, Body: params}); err != nil {
		p.forget(id)
		return nil, err
	}
	select {
	case f, ok := <-ch:
		switch {
		case !ok:
			return nil, errLost()
		case f.Kind == failure:
			return nil, f.Error
		}
		return f.Body, nil
	case <-ctx.Done():
		if p.forget(id) {
			_ = p.send(&frame{Kind: cancel, ID: id}) // the connection's end tells the reader
		}
		return nil, context.Cause(ctx) //nolint:wrapcheck // the caller's own
	}
}

func errLost() *Error {
	return Errorf(CodeLost, "the answer was lost: whether the call was carried out is not known, and it is not repeated")
}

func (p *Peer) forget(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, waits := p.waiting[id]
	delete(p.waiting, id)
	return waits
}

// Note tells the other side something and waits for no answer.
func (p *Peer) Note(method string, params []byte) error {
	return p.send(&frame{Kind: note, Method: method, Body: params})
}

func (p *Peer) send(f *frame) error {
	data, err := encode(f)
	if errors.Is(err, errTooLarge) {
		return Errorf(CodeTooLarge, "a message of %d bytes is larger than allowed", len(f.Body))
	}
	if err != nil {
		return err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if _, err := p.conn.Write(data); err != nil {
		p.end(err)
		return errLost()
	}
	return nil
}

// read serves the connection until it ends.
func (p *Peer) read(ctx context.Context) error {
	r := bufio.NewReaderSize(p.conn, 64<<10)
	for {
		f, err := decode(r)
		if err != nil {
			return err
		}
		switch f.Kind {
		case call:
			err = p.serve(ctx, f)
		case note:
			p.notes.put(f)
		case cancel:
			p.mu.Lock()
			if stop := p.serving[f.ID]; stop != nil {
				stop()
			}
			p.mu.Unlock()
		case answer, failure:
			p.mu.Lock()
			if ch := p.waiting[f.ID]; ch != nil { // else it is too late
				delete(p.waiting, f.ID)
				ch <- f
			}
			p.mu.Unlock()
		}
		if err != nil {
			return err
		}
	}
}

// serve begins with one call of the other side.
func (p *Peer) serve(ctx context.Context, f *frame) error {
	ctx, stop := context.WithCancel(ctx)
	p.mu.Lock()
	busy, twice := len(p.serving) >= maxServing || p.held+len(f.Body) > maxServingBytes, p.serving[f.ID] != nil
	if !busy && !twice {
		p.serving[f.ID] = stop
		p.held += len(f.Body)
	}
	p.mu.Unlock()
	if twice {
		stop()
		return errors.New("two calls with the same id")
	}
	if busy {
		stop()
		return p.send(&frame{Kind: failure, ID: f.ID, Error: Errorf(CodeBusy, "too many calls at once")})
	}
	p.work.Go(func() {
		out := &frame{Kind: answer, ID: f.ID}
		body, err := p.handler.Call(ctx, f.Method, f.Body)
		stop()
		p.mu.Lock()
		delete(p.serving, f.ID)
		p.held -= len(f.Body)
		p.mu.Unlock()
		if out.Body = body; err != nil {
			out.Kind, out.Body, out.Error = failure, nil, asError(err)
		}
		if err := p.send(out); err != nil {
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeTooLarge {
				_ = p.send(&frame{Kind: failure, ID: f.ID, Error: e})
			}
		}
	})
	return nil
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Errorf(CodeTimeout, "it took longer than it may")
	}
	return Errorf(CodeFailed, "%.2000s", err)
}
