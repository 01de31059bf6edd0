package fetch_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"capsem/core/fault"
	"capsem/core/mcp/builtin"
	"capsem/core/mcp/fetch"
	"capsem/core/proto"
)

// network gives example.test an address, and serves a page there.
type network struct{ t *testing.T }

func (n network) ServeDNS(_ context.Context, rw io.ReadWriteCloser) error {
	defer rw.Close()
	var q proto.DNSQuery
	if err := proto.ReadFrame(rw, proto.MaxFrame, &q); err != nil {
		return err
	}
	m := new(dns.Msg)
	if err := m.Unpack(q.Message); err != nil || q.Process.Name != builtin.ProcessName {
		n.t.Errorf("%v from %q", err, q.Process.Name)
	}
	answer := new(dns.Msg)
	answer.SetReply(m)
	if m.Question[0].Name == "example.test." {
		rr, err := dns.NewRR("example.test. 1 IN A 198.18.0.7")
		if err != nil {
			return err
		}
		answer.Answer = append(answer.Answer, rr)
	}
	body, err := answer.Pack()
	if err != nil {
		return err
	}
	return proto.WriteFrame(rw, proto.DNSReply{ID: q.ID, Message: body})
}

type oneConn struct {
	net.Listener

	conn chan net.Conn
}

func (l oneConn) Accept() (net.Conn, error) {
	c, ok := <-l.conn
	if !ok {
		return nil, io.EOF
	}
	return c, nil
}

func (oneConn) Close() error { return nil }

func (n network) ServeConn(_ context.Context, conn net.Conn, open proto.NetworkOpen) {
	if at, err := netip.ParseAddrPort(open.Dest); err != nil || at.String() != "198.18.0.7:80" || open.Process.Name != builtin.ProcessName {
		n.t.Errorf("a connection to %s by %q", open.Dest, open.Process.Name)
	}
	l := oneConn{conn: make(chan net.Conn, 1)}
	l.conn <- conn
	close(l.conn)
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://elsewhere.test/", http.StatusFound)
		case "/refused":
			w.Header().Set("X-Capsem-Rule", "no-such")
			w.WriteHeader(http.StatusForbidden)
		default:
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
		}
	}))
}

func TestRequestsGoTheWayOfTheGuests(t *testing.T) {
	f := fetch.New(network{t}, nil)
	got, err := f.Fetch(t.Context(), &builtin.FetchRequest{Method: "GET", URL: "http://example.test/", MaxBody: 40})
	if err != nil || got.Status != 200 || len(got.Body) != 40 || !got.Cut {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = f.Fetch(t.Context(), &builtin.FetchRequest{Method: "GET", URL: "http://example.test/away"}); err != nil || got.Status != 302 {
		t.Errorf("a redirect was followed: %+v, %v", got, err)
	}
	for url, code := range map[string]fault.Code{
		"http://example.test/refused": fault.Forbidden, "http://other.test/": fault.Forbidden, "ftp://example.test/": fault.Invalid, "http://a@example.test/": fault.Invalid,
	} {
		if _, err := f.Fetch(t.Context(), &builtin.FetchRequest{Method: "GET", URL: url}); !fault.Is(err, code) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
