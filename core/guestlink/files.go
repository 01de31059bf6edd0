package guestlink

import (
	"context"
	"fmt"
	"io"

	"capsem/core/proto"
)

// maxFiles bounds the streams of shared directories at once: each has one, and for a moment a second when it is made anew.
const maxFiles = 2 * proto.MaxShares

// listenFiles serves the streams of shared directories until ctx ends.
func (a *Agent) listenFiles(ctx context.Context, on func(ctx context.Context, tag string, stream io.ReadWriteCloser)) error {
	if on == nil {
		return nil
	}
	l, err := a.session.Listen(proto.PortFiles)
	if err != nil {
		return fmt.Errorf("listen for shared directories: %w", err)
	}
	busy := make(chan struct{}, maxFiles)
	a.wg.Go(func() {
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
					on(ctx, st.Header().Dest, st)
				})
			default:
				a.log.Warn("guest agent: too many streams of shared directories at once, refusing one")
				_ = st.Close()
			}
		}
	})
	return nil
}
