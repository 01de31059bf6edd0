package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"

	"capsem/core/mcp/peer"
	"capsem/core/proto"
)

// Passage is what goes to a server, or comes back from it.
type Passage struct {
	Server, Tool string
	// Received says that it comes back.
	Received bool
	// Text is all the texts in it, as a model reads them: one a line.
	Text []byte
	// Process is who has asked, as the guest claims.
	Process *proto.ProcessClaim
	// Unasked says that nobody waits for it, a notification for one, and that the owner is not to be asked either.
	Unasked bool
	// AskID is the question that Inspect has put to the owner.
	AskID string
}

// lets reports whether what a server says by itself, as JSON, may go on to the guest.
func (g *Gateway) lets(ctx context.Context, server, what string, body []byte) bool {
	if g.cfg.Inspect == nil {
		return true
	}
	text, err := texts(body)
	if err != nil {
		return false
	}
	rule, _ := g.cfg.Inspect(ctx, &Passage{Server: server, Tool: what, Received: true, Text: text, Process: &proto.ProcessClaim{}, Unasked: true})
	return rule == ""
}

// complaint is a server's error, inspected as its answers are.
func (g *Gateway) complaint(ctx context.Context, r *request, call *Call, failed error) error {
	body, err := json.Marshal(failed.Error())
	if err == nil {
		err = g.inspect(ctx, r, call, true, body)
	}
	if err != nil {
		return err
	}
	return failed
}

// inspect has somebody look at a passage of a call, and notes there what came of it; the error says what refuses it.
func (g *Gateway) inspect(ctx context.Context, r *request, call *Call, received bool, body []byte) error {
	if g.cfg.Inspect == nil {
		return nil
	}
	text, err := texts(body)
	if err != nil {
		return peer.Errorf(peer.CodeFailed, "what MCP server %s is told, or says, is no JSON", r.server)
	}
	p := &Passage{Server: r.server, Tool: r.tool, Received: received, Text: text, Process: &call.Process}
	rule, why := g.cfg.Inspect(ctx, p)
	call.AskID = cmp.Or(p.AskID, call.AskID)
	if rule == "" {
		return nil
	}
	call.Decision, call.Rule = "denied", rule
	what := "the arguments"
	if received {
		what = "the answer, which is not shown"
	}
	return peer.Errorf(peer.CodeRefused, "refused by %s: %s was found in %s. Trying again will not help; leave it out, or ask the owner of this VM (%s of MCP server %s)",
		rule, why, what, r.tool, r.server)
}

// texts are the texts of some JSON, names too, one a line. Escapes are undone: they must hide nothing.
func texts(body []byte) ([]byte, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // the caller says what it is
		}
		switch t := token.(type) {
		case string:
			out.WriteString(t)
			out.WriteByte('\n')
		case json.Number:
			out.WriteString(t.String())
			out.WriteByte('\n')
		}
	}
}
