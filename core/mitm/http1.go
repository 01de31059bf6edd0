package mitm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"capsem/core/mitm/strict"
	"capsem/core/policy"
)

// http1 serves HTTP/1. What could be read in two ways does not reach the server.
func (c *conn) http1(ctx context.Context, nc net.Conn) {
	c.strict = strict.NewReader(nc, strict.Limits{Head: c.s.limits.HeaderBytes})
	c.serveOn(ctx, c.s.in1, nc, c.strict)
	if err := c.strict.Err(); err != nil {
		c.note(c.kind, refusal(policy.RuleMalformed, err.Error()), nil, 0, 0)
	} else if n := c.strict.Heads() - c.handled.Load(); n > 0 { // the server did not call the handler
		c.note(c.kind, refusal(policy.RuleMalformed, fmt.Sprintf("the last of the connection: %d requests that cannot be read", n)), nil, 0, 0)
	}
}

// ambiguous makes a refusal of a body that could be read in two ways. Other errors stay what they are.
func ambiguous(err error) error {
	if bad, ok := errors.AsType[*strict.Error](err); ok {
		return plainRefusal(http.StatusBadRequest, policy.RuleMalformed, bad.Error())
	}
	return err
}
