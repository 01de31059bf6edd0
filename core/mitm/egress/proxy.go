package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"capsem/core/fault"
)

const (
	// maxAnswer bounds the head of a proxy's answer, in bytes; answerStart is how it begins.
	maxAnswer   = 16 << 10
	answerStart = "HTTP/1."
)

// proxy is the owner's HTTP proxy.
type proxy struct {
	host, port string
	tls        bool
	// auth is the value of Proxy-Authorization, or empty.
	auth string
}

func (p *proxy) String() string { return net.JoinHostPort(p.host, p.port) }

func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// throughProxy has the proxy connect to t. The proxy's own address is not judged: the owner has named it.
func (d *Dialer) throughProxy(ctx context.Context, t target) (net.Conn, error) {
	conn, err := d.toProxy(ctx)
	if err != nil {
		d.log.Debug("egress: cannot reach the proxy", "proxy", d.proxy.String(), "err", err)
		return nil, explainProxy(d.proxy, err)
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = d.proxy.connect(conn, t)
	if !stop() && err == nil {
		err = context.Cause(ctx) // the deadline stands, or is about to
	}
	if err != nil {
		_ = conn.Close()
		d.log.Debug("egress: the proxy does not connect", "proxy", d.proxy.String(), "host", t.host, "err", err)
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, explainConnect(d.proxy, t, err)
	}
	return conn, nil
}

// toProxy connects to the proxy itself, by the system's resolver: the owner's name for it may be one of the host's own.
func (d *Dialer) toProxy(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTime}
	conn, err := dialer.DialContext(ctx, "tcp", d.proxy.String())
	if err != nil || !d.proxy.tls {
		return conn, err //nolint:wrapcheck // the caller explains it
	}
	roots, err := d.roots()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return handshake(ctx, conn, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: d.proxy.host, RootCAs: roots, NextProtos: []string{"http/1.1"},
	})
}

// refusal is a proxy's answer that is no connection.
type refusal struct{ status int }

func (r *refusal) Error() string { return fmt.Sprintf("the proxy answered %d", r.status) }

var errNotHTTP = errors.New("the proxy's answer is no HTTP")

// connect asks for the connection. The answer is read byte by byte: what follows its head is the target's.
func (p *proxy) connect(conn net.Conn, t target) error {
	ask := "CONNECT " + t.String() + " HTTP/1.1\r\nHost: " + t.String() + "\r\n"
	if p.auth != "" {
		ask += "Proxy-Authorization: " + p.auth + "\r\n"
	}
	if _, err := conn.Write([]byte(ask + "\r\n")); err != nil {
		return fmt.Errorf("ask proxy: %w", err)
	}
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if len(head) == maxAnswer {
			return errNotHTTP
		}
		n, err := conn.Read(one)
		if n == 0 && err != nil {
			return fmt.Errorf("read proxy's answer: %w", err)
		}
		head = append(head, one[:n]...)
		if !strings.HasPrefix(answerStart, string(head[:min(len(head), len(answerStart))])) {
			return errNotHTTP
		}
	}
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotHTTP, err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return &refusal{answer.StatusCode}
	}
	return nil
}

// explainProxy says why the proxy itself is not reached.
func explainProxy(p *proxy, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	what := reason(err)
	if _, explained := errors.AsType[*fault.Error](err); explained {
		return err
	}
	if what == "" {
		what = tlsReason(err)
	}
	return fault.Wrap(err, fault.Unavailable, "the proxy %s cannot be used: %s", p, what).WithHint("look at network.proxy in user.toml")
}

// explainConnect says why the proxy did not connect.
func explainConnect(p *proxy, t target, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	const look = "look at network.proxy in user.toml"
	if r, ok := errors.AsType[*refusal](err); ok {
		if r.status == http.StatusProxyAuthRequired {
			return fault.Wrap(err, fault.Unavailable, "the proxy %s wants another user and password (407)", p).WithHint(look)
		}
		return fault.Wrap(err, fault.Unavailable, "the proxy %s does not connect to %s: it answered %d", p, t, r.status)
	}
	if errors.Is(err, errNotHTTP) {
		return fault.Wrap(err, fault.Unavailable, "%s does not answer as an HTTP proxy", p).WithHint(look)
	}
	what := reason(err)
	if what == "" {
		what = "it hung up"
	}
	return fault.Wrap(err, fault.Unavailable, "the proxy %s does not connect to %s: %s", p, t, what)
}
