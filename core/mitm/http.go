package mitm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"capsem/core/fault"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

var (
	errLeft = errors.New("the client left")
	errBusy = errors.New("too many requests of this VM at once")
)

func (s *Server) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: s.pool, FlushInterval: -1, BufferPool: buffers, ModifyResponse: s.answered, ErrorHandler: s.fail,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// handle serves one request.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	s.handling.RLock()
	defer s.handling.RUnlock()
	c := connOf(r)
	if c == nil || s.closed {
		panic(http.ErrAbortHandler)
	}
	c.handled.Add(1)
	x := s.exchange(c, w, r)
	defer func() {
		failed := recover()
		x.finish(failed != nil)
		if failed != nil {
			panic(failed)
		}
	}()
	r = x.request
	err := s.record.ModifyRequest(r)
	if err == nil {
		err = c.check(r)
	}
	if err == nil {
		select {
		case s.flights <- struct{}{}:
			defer func() { <-s.flights }()
			err = s.request.ModifyRequest(r)
		default:
			err = errBusy
		}
	}
	if err != nil {
		s.fail(x, r, err)
		return
	}
	if r.ProtoMajor == 1 {
		_ = http.NewResponseController(w).EnableFullDuplex() // an answer may begin before the request has ended
	}
	x.lasting.begin()
	s.proxy.ServeHTTP(x, r)
}

// exchange begins a request: its flow, and what counts its bytes.
func (s *Server) exchange(c *conn, w http.ResponseWriter, r *http.Request) *exchange {
	f := &flow.Flow{
		VM: s.cfg.VM, Process: &c.open.Process, Host: c.host, Port: c.port, Scheme: c.scheme, Type: c.kind, Began: time.Now(), Header: r.Header.Clone(),
	}
	x := &exchange{ResponseWriter: w, server: s, conn: c, flow: f}
	if isWebSocket(r) {
		f.Scheme, f.Type, x.socket = "ws"+strings.TrimPrefix(c.scheme, "http"), "websocket", true
		// Extensions are not read here (core/mitm/ws), so none is agreed: messages are not compressed between guest and host.
		r.Header.Del("Sec-Websocket-Extensions")
	} else {
		r.Header.Del("Upgrade") // no other protocol can be looked into
		r.Header.Del("Http2-Settings")
	}
	ctx, abandon := context.WithCancelCause(context.WithValue(flow.With(r.Context(), f), exchangeKey{}, x))
	x.lasting = lasting{x: x, abandon: abandon, unlink: context.AfterFunc(s.ctx, func() { abandon(nil) })}
	x.request = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		x.request.Body = &sentBody{ReadCloser: r.Body, x: x}
	}
	return x
}

// isWebSocket says that a request asks for a WebSocket connection.
func isWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") &&
		len(r.Header["Upgrade"]) == 1 && strings.EqualFold(r.Header["Upgrade"][0], "websocket")
}

// check refuses requests that are for another host than their connection, and those that make no sense here.
func (c *conn) check(r *http.Request) error {
	if r.Method == http.MethodConnect {
		return plainRefusal(http.StatusMethodNotAllowed, "capsem:no-proxy", "this is no proxy to CONNECT through: connect to the host itself")
	}
	if r.URL.Opaque != "" || r.URL.User != nil {
		return plainRefusal(http.StatusBadRequest, policy.RuleMalformed, "the request's target is none")
	}
	if r.Host == "" && !r.ProtoAtLeast(1, 1) {
		return nil
	}
	for _, also := range r.Header["Host"] { // HTTP/2 may have it beside :authority
		if err := c.isFor(also); err != nil {
			return err
		}
	}
	return c.isFor(r.Host)
}

// isFor refuses a host that is not the connection's.
func (c *conn) isFor(hostport string) error {
	if hostport == c.host {
		return nil
	}
	host, port := hostport, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host, port = host[:i], host[i+1:]
	}
	name, err := policy.NormalHost(host)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || name != c.host || port != "" && (portErr != nil || n != uint64(c.port)) {
		why := fmt.Sprintf("the request is for %.100q, its connection for %s", hostport, net.JoinHostPort(c.host, strconv.Itoa(int(c.port))))
		return plainRefusal(http.StatusMisdirectedRequest, ruleHost, why)
	}
	return nil
}

// plainRefusal is a refusal that is not the policy's.
func plainRefusal(status int, rule, reason string) *flow.Refusal {
	return &flow.Refusal{
		Status: status, Header: http.Header{"Content-Type": {"application/json"}, "X-Capsem-Rule": {rule}}, Rule: rule, Reason: reason,
		Body: errorBody(policy.Refused{Error: reason, Rule: rule, Reason: reason}),
	}
}

func errorBody(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil { // only strings are in it
		return []byte(`{"error":"refused"}`)
	}
	return text
}

// rewrite makes the request as it goes to its host: as the guest sent it, but for what is about its connection only.
func rewrite(pr *httputil.ProxyRequest) {
	c := connOf(pr.In)
	out := pr.Out
	out.URL.Scheme, out.URL.Host = c.scheme, net.JoinHostPort(c.host, strconv.Itoa(int(c.port)))
	out.URL.RawQuery, out.URL.ForceQuery = pr.In.URL.RawQuery, pr.In.URL.ForceQuery // also what Go cannot parse
	if out.Host == "" {
		out.Host = c.host
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := pr.In.Header[name]; ok {
			out.Header[name] = values
		}
	}
	out.Trailer = pr.In.Trailer // filled when the body has been read
}

// answered lets the modifiers see an answer before anything of it is passed on.
func (s *Server) answered(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	if x == nil {
		return errNoExchange
	}
	if res.StatusCode == http.StatusSwitchingProtocols && !x.socket {
		return &upstreamError{errors.New("the host changed to another protocol without being asked")}
	}
	if err := s.response.ModifyResponse(res); err != nil {
		return err //nolint:wrapcheck // a Refusal is looked for
	}
	if x.socket && res.StatusCode == http.StatusSwitchingProtocols {
		return x.upgrade(res)
	}
	res.Body = &receivedBody{ReadCloser: res.Body, x: x, open: res.ContentLength < 0}
	return nil
}

// fail answers a request that came to nothing.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	if x == nil || x.status != 0 {
		panic(http.ErrAbortHandler)
	}
	refusal, refused := errors.AsType[*flow.Refusal](err)
	if !refused {
		refusal, refused = errors.AsType[*flow.Refusal](context.Cause(r.Context()))
	}
	upstream, isUpstream := errors.AsType[*upstreamError](err)
	switch {
	case refused:
		x.refuse(refusal)
		return
	case r.Context().Err() != nil:
		x.cut(errLeft)
		panic(http.ErrAbortHandler)
	case errors.Is(err, errBusy):
		x.cut(err)
		w.Header().Set("Retry-After", "1")
		x.tell(http.StatusServiceUnavailable, err.Error())
	case isUpstream:
		line := upstreamLine(upstream)
		x.cut(errors.New(line))
		x.tell(http.StatusBadGateway, line)
	default:
		s.log.Warn("proxy: a modifier failed", "host", x.flow.Host, "err", err)
		x.cut(err)
		x.tell(http.StatusBadGateway, "the proxy could not handle this request")
	}
}

// upstreamLine is what failed upstream, in a line for the guest.
func upstreamLine(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Message
	}
	if u, ok := errors.AsType[*upstreamError](err); ok {
		err = u.err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the host closed the connection without an answer"
	}
	return fault.Line(err)
}

// upstreamError is a failure of the host that a request is for, or of the way to it.
type upstreamError struct{ err error }

func (e *upstreamError) Error() string { return "upstream: " + e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }
