package mitm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

var errNoExchange = errors.New("the answer belongs to no request")

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// exchange is a request and its answer. It is the http.ResponseWriter that the answer is written to.
type exchange struct {
	http.ResponseWriter
	server  *Server
	conn    *conn
	flow    *flow.Flow
	request *http.Request
	// socket says that a WebSocket connection is asked for.
	socket bool
	// status is that of the answer, 0 before it begins. Only the handler's goroutine looks at it.
	status int

	sent, received atomic.Int64

	// begun says that the guest has got the beginning of an answer; upgraded is its WebSocket connection.
	begun    atomic.Bool
	upgraded atomic.Pointer[socket]
	lasting  lasting

	mu  sync.Mutex
	err error
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader notes the status, and keeps Go from adding fields that the host did not send. Of what comes before an answer the guest gets
// only the word to go on: no modifier sees the fields.
func (x *exchange) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols {
		clear(x.Header())
		if status != http.StatusContinue {
			return
		}
	}
	if status >= 200 && x.status == 0 {
		x.status = status
		x.begun.Store(true)
		h := x.Header()
		for _, name := range []string{"Content-Type", "Date"} {
			if _, ok := h[name]; !ok {
				h[name] = nil
			}
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write counts what the guest gets.
func (x *exchange) Write(p []byte) (int, error) {
	n, err := x.ResponseWriter.Write(p)
	x.received.Add(int64(n))
	if err != nil {
		x.cut(fmt.Errorf("%w: %w", errLeft, err))
	}
	return n, err //nolint:wrapcheck // an http.ResponseWriter's
}

// cut notes what ended the exchange early; the first such counts.
func (x *exchange) cut(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err == nil {
		x.err = err
	}
}

// refuse answers with a refusal.
func (x *exchange) refuse(r *flow.Refusal) {
	if v := x.flow.Verdict(); v.Effect != policy.Deny {
		x.flow.SetVerdict(refusal(r.Rule, r.Reason)) // a modifier's, not the policy's
	}
	maps.Copy(x.Header(), r.Header)
	x.reply(r.Status, r.Body)
}

// tell answers with one line of what is wrong.
func (x *exchange) tell(status int, line string) {
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("Cache-Control", "no-store")
	x.reply(status, append(errorBody(map[string]string{
		"error": line, "source": "capsem", "host": x.flow.Host, "port": strconv.Itoa(int(x.flow.Port)),
	}), '\n'))
}

func (x *exchange) reply(status int, body []byte) {
	x.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if x.request.ProtoMajor == 1 && (x.unread() || status == http.StatusBadRequest || status == http.StatusMethodNotAllowed) {
		x.Header().Set("Connection", "close") // what is still to come of the body is not waited for
	}
	x.WriteHeader(status)
	_, _ = x.Write(body)
}

// unread reports whether the guest may still have much to send.
func (x *exchange) unread() bool {
	n := x.request.ContentLength
	return n < 0 || n-x.sent.Load() > 256<<10
}

// finish ends the exchange; aborted says that its handler gave up.
func (x *exchange) finish(aborted bool) {
	x.lasting.end()
	_ = x.request.Body.Close() // for those whom modifiers have put around it
	if aborted {
		x.cut(errLeft)
		if x.conn.kind != "h2" {
			x.conn.aborted.Store(true)
		}
	}
	x.mu.Lock()
	err := x.err
	x.mu.Unlock()
	x.flow.Finish(flow.End{Status: x.status, Sent: x.sent.Load(), Received: x.received.Load(), Err: err, At: time.Now()})
}

// sentBody counts the body of a request.
type sentBody struct {
	io.ReadCloser
	x *exchange
}

// Read counts.
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.x.sent.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.x.cut(fmt.Errorf("the request was cut short: %w", err))
		err = ambiguous(err)
	}
	return n, err //nolint:wrapcheck // an io.Reader's
}

// Close leaves the body to Go's server: closing it here would wait for what a client that was not told to go on does not send.
func (b *sentBody) Close() error { return nil }

// receivedBody notices an answer that is cut short.
type receivedBody struct {
	io.ReadCloser
	x *exchange
	// open says that the length is not known: the client learns of the end after this body.
	open bool
}

// Read notes an early end.
func (b *receivedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.open && errors.Is(err, io.EOF) && b.x.request.Context().Err() != nil {
		err = errLeft // the host ended since it was told that the client had left
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if b.x.request.Context().Err() != nil {
			b.x.cut(errLeft)
		} else {
			b.x.cut(fmt.Errorf("the answer was cut short: %w", err))
		}
	}
	return n, err //nolint:wrapcheck // an io.Reader's
}
