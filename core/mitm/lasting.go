package mitm

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// lasting has the policy asked again, now and then, about an exchange that goes on. It costs one timer, and no goroutine of its own.
type lasting struct {
	x *exchange
	// abandon ends the request to the host, with what the guest is told if it has no answer yet.
	abandon context.CancelCauseFunc
	// unlink ends that the end of the proxy is the end of the request.
	unlink func() bool

	// mu is held while the policy is asked, so that end waits for that.
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func (l *lasting) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(l.x.server.limits.Recheck, l.check)
}

func (l *lasting) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.unlink()
	l.abandon(nil)
}

// check ends the exchange if the policy no longer allows it.
func (l *lasting) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	err := l.x.server.judge.Still(l.x.flow)
	if err == nil {
		l.timer.Reset(l.x.server.limits.Recheck)
		return
	}
	l.x.cut(errCut)
	l.abandon(err)
	switch {
	case !l.x.begun.Load(): // it gets a refusal
	case l.x.conn.h2(): // its other requests go on; this one may be waiting for a client that does not read
		_ = http.NewResponseController(l.x.ResponseWriter).SetWriteDeadline(time.Unix(1, 0))
	default:
		if s := l.x.upgraded.Load(); s != nil {
			_ = s.Close()
		}
		reset(l.x.conn.in.Conn)
	}
}
