package guestlink

import (
	"context"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

const (
	// lifecycleTimeout bounds how long one request may take to arrive and its answer to leave.
	lifecycleTimeout = 10 * time.Second
	// maxLifecycle is how many requests are looked at once; more are refused.
	maxLifecycle = 8
)

// serveLifecycle answers what processes in the guest ask for, one request a stream.
func (a *Agent) serveLifecycle(ctx context.Context, l link.Listener, on func(proto.LifecycleRequest) proto.LifecycleReply) {
	busy := make(chan struct{}, maxLifecycle)
	for {
		st, err := l.Accept(ctx)
		if err != nil {
			return
		}
		select {
		case busy <- struct{}{}:
			a.wg.Go(func() {
				a.answerLifecycle(st, on)
				<-busy
			})
		default:
			a.log.Warn("guest agent: too many lifecycle requests at once, refusing one")
			_ = st.Close()
		}
	}
}

func (a *Agent) answerLifecycle(st link.Stream, on func(proto.LifecycleRequest) proto.LifecycleReply) {
	defer st.Close()
	if err := st.SetDeadline(time.Now().Add(lifecycleTimeout)); err != nil {
		return
	}
	var req proto.LifecycleRequest
	err := proto.ReadFrame(st, proto.MaxHeader, &req)
	if err == nil {
		err = req.Validate()
	}
	reply := proto.LifecycleReply{Message: "this VM does not allow that"}
	switch {
	case err != nil:
		a.log.Warn("guest agent: bad lifecycle request", "err", err)
		reply.Message = "malformed request"
	case on != nil:
		reply = on(req)
	}
	if err := proto.WriteFrame(st, reply); err != nil {
		a.log.Debug("guest agent: cannot answer a lifecycle request", "err", err)
	}
}
