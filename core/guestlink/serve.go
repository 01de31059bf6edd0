package guestlink

import (
	"context"
	"fmt"

	"capsem/core/link"
	"capsem/core/proto"
)

// Service is what the host serves on a port that the guest opens streams to.
type Service struct {
	// Max is how many streams may be open at once; further ones are refused.
	Max int
	// Serve serves one stream until it or ctx ends. It is closed afterwards.
	Serve func(ctx context.Context, stream link.Stream)
}

// listen serves the ports that are served until ctx ends.
func (a *Agent) listen(ctx context.Context, services map[proto.Port]Service) error {
	for port, s := range services {
		l, err := a.session.Listen(port)
		if err != nil {
			return fmt.Errorf("listen on port %v: %w", port, err)
		}
		a.wg.Go(func() { a.accept(ctx, port, l, s) })
	}
	return nil
}

func (a *Agent) accept(ctx context.Context, port proto.Port, l link.Listener, s Service) {
	busy := make(chan struct{}, s.Max)
	for {
		st, err := l.Accept(ctx)
		if err != nil {
			return
		}
		select {
		case busy <- struct{}{}:
			a.wg.Go(func() {
				defer func() { <-busy }()
				defer st.Close()
				s.Serve(ctx, st)
			})
		default:
			a.log.Warn("guest agent: too many streams at once, refusing one", "port", port.String())
			_ = st.Close()
		}
	}
}
