package login

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"

	"capsem/core/fault"
)

const (
	// returnPath is where the browser comes back to.
	returnPath = "/capsem/signed-in"
	// maxCode bounds what it brings.
	maxCode = 8 << 10
	// pageTime bounds one request of the browser, and is how long its last answer may take.
	pageTime = 5 * time.Second
)

// comeBack is where the browser comes back to.
type comeBack struct {
	ctx      context.Context //nolint:containedctx // the sign-in's
	listener net.Listener
	server   *http.Server
	served   chan struct{}
	result   chan answer

	mu    sync.Mutex
	state string // empty while nobody is expected
}

// answer is what the browser brings.
type answer struct {
	result *auth.AuthorizationResult
	err    error
}

// newReturn listens on the loopback.
func newReturn(ctx context.Context, port uint16) (*comeBack, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "there is nowhere for the browser to come back to: port %d cannot be had", port)
	}
	b := &comeBack{ctx: ctx, listener: l, served: make(chan struct{}), result: make(chan answer, 1)}
	b.server = &http.Server{Handler: b, ReadTimeout: pageTime, WriteTimeout: pageTime, MaxHeaderBytes: 64 << 10}
	go func() {
		defer close(b.served)
		_ = b.server.Serve(l) // until it is closed
	}()
	return b, nil
}

func (b *comeBack) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), pageTime)
	defer cancel()
	if b.server.Shutdown(ctx) != nil {
		_ = b.server.Close() // a browser that reads nothing
	}
	<-b.served
}

func (b *comeBack) address() string { return "http://" + b.listener.Addr().String() + returnPath }

// expect says which state the browser has to bring.
func (b *comeBack) expect(state string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = state
}

// wait waits for the browser.
func (b *comeBack) wait(ctx context.Context) (*auth.AuthorizationResult, error) {
	select {
	case a := <-b.result:
		return a.result, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx) //nolint:wrapcheck // the caller's own
	}
}

// ServeHTTP takes the browser's request. Others, which any page in a browser and any process here can make, end nothing.
func (b *comeBack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	q := r.URL.Query()
	if r.Method != http.MethodGet || r.URL.Path != returnPath || r.Host != b.listener.Addr().String() || len(r.URL.RawQuery) > maxCode || !b.take(q.Get("state")) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintln(w, "This is not the sign-in that capsem waits for.")
		return
	}
	a := answer{result: &auth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}}
	if code := q.Get("error"); code != "" || a.result.Code == "" {
		a = answer{err: fault.New(fault.Forbidden, "the authorization server says no: %s", fault.Plain(code[:min(len(code), 100)]))}
		fmt.Fprintln(w, "The sign-in was refused. Go back to the terminal.")
	} else {
		fmt.Fprintln(w, "Signed in. You can close this page and go back to the terminal.")
	}
	b.result <- a // there is one only
}

// take reports whether it is the expected one, once.
func (b *comeBack) take(state string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == "" || subtle.ConstantTimeCompare([]byte(state), []byte(b.state)) != 1 {
		return false
	}
	b.state = ""
	return true
}
