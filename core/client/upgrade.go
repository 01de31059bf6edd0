package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

// ExecStream starts a command and returns the connection on which its stream frames run (proto.Kind): towards the guest
// Stdin, Resize and Signal; from it Started, Stdout, Stderr and one Exit, or one Error. Closing it ends the command.
func (c *Client) ExecStream(ctx context.Context, id string, req api.ExecRequest) (net.Conn, error) {
	text, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	conn, err := c.upgrade(ctx, escape("exec", id, "stream"), api.UpgradeStream)
	if err != nil {
		return nil, err
	}
	for more := true; more; {
		n := min(len(text), proto.MaxChunk)
		more = n == proto.MaxChunk
		if err := proto.WriteStreamFrame(conn, proto.KindData, text[:n]); err != nil {
			return nil, errors.Join(c.unreachable(ctx, err), conn.Close())
		}
		text = text[n:]
	}
	return conn, nil
}

// Forward connects to a TCP port on the guest's loopback.
func (c *Client) Forward(ctx context.Context, id string, port uint16) (net.Conn, error) {
	return c.upgrade(ctx, escape("forward", id)+"?port="+strconv.Itoa(int(port)), api.UpgradeForward)
}

// upgrade asks for another protocol on a connection of its own.
func (c *Client) upgrade(ctx context.Context, path, protocol string) (net.Conn, error) {
	req, err := request(ctx, http.MethodPost, path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, err := switchOver(raw, req)
	if !stop() && err == nil {
		err = errors.Join(context.Cause(ctx), conn.Close())
	}
	if err != nil {
		_ = raw.Close() // the error matters more
		if _, ok := errors.AsType[*fault.Error](err); ok {
			return nil, err
		}
		return nil, c.unreachable(ctx, err)
	}
	return conn, nil
}

func switchOver(raw net.Conn, req *http.Request) (net.Conn, error) {
	if err := req.Write(raw); err != nil {
		return nil, fmt.Errorf("ask for upgrade: %w", err)
	}
	r := bufio.NewReader(raw)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, fmt.Errorf("ask for upgrade: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return &upgraded{Conn: raw, r: r}, nil
}

// upgraded is a connection with what was read ahead.
type upgraded struct {
	net.Conn
	r *bufio.Reader
}

// Read reads what came after the answer.
func (u *upgraded) Read(p []byte) (int, error) { return u.r.Read(p) } //nolint:wrapcheck // a net.Conn hands errors through

// CloseWrite sends end-of-file and leaves reading open.
func (u *upgraded) CloseWrite() error {
	if w, ok := u.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite() //nolint:wrapcheck // as above
	}
	return errors.New("close for writing: not a unix socket")
}
