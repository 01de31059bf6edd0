package judge

import (
	"context"
	"io"

	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// body is the body of a request whose length was not said. When it has grown past what the verdict holds for, the policy is asked again;
// the bytes past that point are not passed on before it agrees.
type body struct {
	io.ReadCloser
	m     *Modifier
	ctx   context.Context //nolint:containedctx // that of the request whose body it is
	f     *flow.Flow
	size  int64
	limit int64
	err   error
}

// Read reads on as far as the policy allows.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	b.size += int64(n)
	if b.limit >= 0 && b.size > b.limit {
		if b.err = b.ask(); b.err != nil {
			return 0, b.err
		}
	}
	return n, err //nolint:wrapcheck // an io.Reader's
}

func (b *body) ask() error {
	asked, ok := b.f.Get(askedKey{}).(*policy.Request)
	if !ok {
		return errNoFlow
	}
	now := *asked
	now.BodySize = b.size
	v := b.m.policy.Continue(b.ctx, &now, b.f.Verdict())
	if v.Effect != policy.Allow {
		b.f.SetVerdict(v)
		return b.m.refuse(v, &now)
	}
	b.f.Asked(v.AskID)
	b.limit = b.size // a verdict on a known size names no further boundary, so each piece from here on is asked about
	return nil
}
