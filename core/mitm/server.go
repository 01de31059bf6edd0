// Package mitm is the host's end of a guest's outbound TCP connections. The first bytes of a connection decide what it is: TLS, which is
// ended here with a certificate of the installation's CA, HTTP/1 or HTTP/2 in the clear, or something else, which passes only where a rule
// opens that host and port for raw TCP. Each HTTP request goes through modifiers (core/mitm/flow): recording, policy, those of the caller;
// then to its host on a connection whose address the policy has agreed to.
//
// The destination is a name: the one that the connection's stand-in address was given for (core/dns), which TLS's server name has to
// equal, or, for an address that stands for nothing, the server name, or else the address itself. A Host or :authority that differs is
// answered 421. Nothing is sent anywhere before the policy has agreed, with one exception: where it may come to agree without asking, a TLS
// connection to the host is made while the guest's is, to learn whether the host speaks HTTP/2.
package mitm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"time"

	"github.com/google/martian/v3"
	"github.com/google/martian/v3/fifo"

	"capsem/core/mitm/egress"
	"capsem/core/mitm/judge"
	"capsem/core/mitm/record"
	"capsem/core/policy"
)

// Names says which name an address stands for; a dns.Server is one.
type Names interface {
	Name(addr netip.Addr) (string, bool)
}

// Authority gives the certificate that the guest is shown for a name.
type Authority interface {
	Leaf(name string) (*tls.Certificate, error)
}

// Dialer connects to hosts; an egress.Dialer is one.
type Dialer interface {
	Dial(ctx context.Context, host string, port uint16, permit egress.Permit) (net.Conn, error)
	DialTLS(ctx context.Context, host string, port uint16, permit egress.Permit, alpn []string) (*tls.Conn, error)
}

// Config is what a Server needs. All but Modifiers, Bypass, Preview, Limits and Log must be there.
type Config struct {
	// VM is the VM's name.
	VM        string
	Policy    judge.Policy
	Names     Names
	Authority Authority
	Dialer    Dialer
	Recorder  record.Recorder
	// Modifiers are martian's RequestModifiers and ResponseModifiers. They see requests that the policy allows, and answers, in this order.
	Modifiers []any
	// Bypass are patterns of hosts whose TLS is not ended but passed on, where the policy allows them whatever the requests are.
	Bypass []string
	// Preview is how many bytes of each body are recorded.
	Preview int
	Limits  Limits
	Log     *slog.Logger
}

// Limits bound what a guest can take of the host. Zero fields have the defaults named.
type Limits struct {
	// Connections at once, default 480; Requests in flight, default 1024; Streams of one HTTP/2 connection, default 128.
	Connections, Requests, Streams int
	// HeaderBytes of a request, and as many of an answer; default 256 KiB.
	HeaderBytes int
	// FirstBytes is how long a client may take to say what it speaks, where the answer matters; default 10 s. Quiet is how long it may
	// say nothing before it is taken for one that waits for the server to speak, where raw TCP is open too; default 1.5 s.
	FirstBytes, Quiet time.Duration
	// Head is how long a TLS handshake or the head of a request may take once begun, default 30 s; Idle how long a connection may be
	// without a request, default 5 min.
	Head, Idle time.Duration
	// Recheck is how often the policy is asked again about what lasts: tunnels, raw connections, WebSockets; default 1 s.
	Recheck time.Duration
}

func (l *Limits) defaults() {
	count := func(v *int, to int) {
		if *v <= 0 {
			*v = to
		}
	}
	while := func(v *time.Duration, to time.Duration) {
		if *v <= 0 {
			*v = to
		}
	}
	count(&l.Connections, 480)
	count(&l.Requests, 1024)
	count(&l.Streams, 128)
	count(&l.HeaderBytes, 256<<10)
	while(&l.FirstBytes, 10*time.Second)
	while(&l.Quiet, 1500*time.Millisecond)
	while(&l.Head, 30*time.Second)
	while(&l.Idle, 5*time.Minute)
	while(&l.Recheck, time.Second)
}

// Server serves the connections of one VM.
type Server struct {
	cfg    Config
	limits Limits
	log    *slog.Logger
	judge  *judge.Modifier
	record *record.Modifier
	bypass []policy.HostPattern
	// request are the modifiers after the record's, response all, in their order.
	request, response *fifo.Group

	proxy *httputil.ReverseProxy
	// h1 and h2 serve what is HTTP by then; their connections come from in1 and in2.
	h1, h2   *http.Server
	in1, in2 *inbox
	// tls1 and tls2 end TLS for clients that are to speak HTTP/1 and HTTP/2.
	tls1, tls2 *tls.Config
	pool       *pool
	known      *spoken

	conns, flights chan struct{}
	serving        sync.WaitGroup
	// handling is held for reading by each request: its row has to be written before Close returns, and an HTTP server that is closed
	// does not wait for its handlers. closed says that none may begin.
	handling sync.RWMutex
	closed   bool
	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelFunc
}

// New makes a Server. It works until ctx ends, or Close.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Policy == nil || cfg.Names == nil || cfg.Authority == nil || cfg.Dialer == nil || cfg.Recorder == nil {
		return nil, errors.New("make proxy: policy, names, authority, dialer and recorder are needed")
	}
	cfg.Limits.defaults()
	s := &Server{
		cfg: cfg, limits: cfg.Limits, log: cfg.Log, judge: judge.New(cfg.Policy), known: newSpoken(),
		conns: make(chan struct{}, cfg.Limits.Connections), flights: make(chan struct{}, cfg.Limits.Requests),
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, text := range cfg.Bypass {
		p, err := policy.ParseHostPattern(text)
		if err != nil {
			return nil, fmt.Errorf("make proxy: bypass: %w", err)
		}
		s.bypass = append(s.bypass, p)
	}
	if err := s.modifiers(); err != nil {
		return nil, err
	}
	s.pool = newPool(s)
	s.tls1, s.tls2 = s.tlsConfig("http/1.1"), s.tlsConfig("h2")
	s.proxy = s.newProxy()
	s.serveHTTP()
	return s, nil
}

// modifiers puts them in their order: the record's request half comes first, by itself, so that it knows of what others refuse and not of what
// they put in; its response half last.
func (s *Server) modifiers() error {
	s.record = record.New(s.cfg.Recorder, s.cfg.Preview)
	s.request, s.response = fifo.NewGroup(), fifo.NewGroup()
	s.request.AddRequestModifier(s.judge)
	for _, m := range s.cfg.Modifiers {
		req, isReq := m.(martian.RequestModifier)
		res, isRes := m.(martian.ResponseModifier)
		if !isReq && !isRes {
			return fmt.Errorf("make proxy: %T modifies neither requests nor responses", m)
		}
		if isReq {
			s.request.AddRequestModifier(req)
		}
		if isRes {
			s.response.AddResponseModifier(res)
		}
	}
	s.response.AddResponseModifier(s.record)
	return nil
}

// serveHTTP starts the two HTTP servers, each for the connections it is handed.
func (s *Server) serveHTTP() {
	s.in1, s.in2 = newInbox(), newInbox()
	base := func() *http.Server {
		return &http.Server{
			Handler: http.HandlerFunc(s.handle), ConnContext: connContext, ReadHeaderTimeout: s.limits.Head, IdleTimeout: s.limits.Idle,
			MaxHeaderBytes: s.limits.HeaderBytes, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), Protocols: new(http.Protocols),
			DisableGeneralOptionsHandler: true, // OPTIONS * is judged as any other
		}
	}
	s.h1, s.h2 = base(), base()
	s.h1.Protocols.SetHTTP1(true)
	s.h2.Protocols.SetUnencryptedHTTP2(true) // TLS has been ended by then
	s.h2.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: s.limits.Streams, MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerConnection: 2 << 20,
		MaxReceiveBufferPerStream: 512 << 10, MaxDecoderHeaderTableSize: 16 << 10, MaxEncoderHeaderTableSize: 16 << 10,
		SendPingTimeout: time.Minute, PingTimeout: 30 * time.Second,
	}
	for server, in := range map[*http.Server]*inbox{s.h1: s.in1, s.h2: s.in2} {
		s.serving.Go(func() {
			if err := server.Serve(in); err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.log.Error("proxy: HTTP server ended", "err", err)
			}
		})
	}
}

// Close ends all connections and requests, and waits for them.
func (s *Server) Close() {
	s.cancel()
	_ = s.h1.Close()
	_ = s.h2.Close()
	s.pool.close()
	s.serving.Wait()
	s.handling.Lock()
	s.closed = true
	s.handling.Unlock()
}
