package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxJunk is how many packets that are no answer are read over before a server is given up: someone is guessing.
	maxJunk = 100
	// maxPacket is more than a server may send over UDP (maxUDP is what it is asked for); a longer one is cut and so no answer.
	maxPacket = 4096
)

var (
	errNotAnswer = errors.New("not an answer to the question")
	errNoServer  = errors.New("no nameserver is configured")
)

// transport takes one question to one server. The question's name has its final dot.
type transport interface {
	exchange(ctx context.Context, question dns.Question, edns bool) (*dns.Msg, error)
}

// upstream is the owner's resolvers, tried in turn.
type upstream struct {
	// list gives the servers, and a number that changes with them.
	list    func() ([]transport, uint64, error)
	timeout time.Duration
	tries   int
	// good is the server that answered last.
	good atomic.Int64
}

// ask puts a question to each server until one says what there is or that there is nothing. A second round does without EDNS, which
// some old ones and some firewalls do not pass.
func (u *upstream) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	servers, _, err := u.list()
	if err != nil {
		return nil, err
	}
	question := dns.Question{Name: name + ".", Qtype: qtype, Qclass: dns.ClassINET}
	first := int(u.good.Load())
	err = errNoServer
	for try := range u.tries {
		for i := range servers {
			n := (first + i) % len(servers)
			var m *dns.Msg
			if m, err = u.one(ctx, servers[n], question, try == 0); err == nil {
				u.good.Store(int64(n))
				return m, nil
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("ask upstream: %w", context.Cause(ctx))
			}
		}
	}
	return nil, fmt.Errorf("ask upstream: %w", err)
}

func (u *upstream) one(ctx context.Context, s transport, question dns.Question, edns bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	m, err := s.exchange(ctx, question, edns)
	if err != nil {
		return nil, err
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("the server says %s", dns.RcodeToString[m.Rcode])
	}
	return m, nil
}

func newQuestion(question dns.Question, id uint16, edns bool) ([]byte, error) {
	m := dns.Msg{MsgHdr: dns.MsgHdr{Id: id, RecursionDesired: true}, Question: []dns.Question{question}}
	if edns {
		m.SetEdns0(maxUDP, false)
	}
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack question: %w", err)
	}
	return wire, nil
}

// readAnswer reads a message that claims to answer a question. Whatever does not fit it exactly is not believed.
func readAnswer(wire []byte, id uint16, question dns.Question) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		return nil, fmt.Errorf("unpack answer: %w", err)
	}
	if !m.Response || m.Id != id || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		return nil, errNotAnswer
	}
	got := m.Question[0]
	if got.Qtype != question.Qtype || got.Qclass != question.Qclass || !strings.EqualFold(got.Name, question.Name) {
		return nil, errNotAnswer
	}
	return m, nil
}

// plain is a server asked over UDP and, for answers that do not fit, TCP.
type plain struct{ addr string }

func (p plain) exchange(ctx context.Context, question dns.Question, edns bool) (*dns.Msg, error) {
	id := dns.Id()
	wire, err := newQuestion(question, id, edns)
	if err != nil {
		return nil, err
	}
	m, err := p.over(ctx, "udp", wire, func(conn net.Conn) (*dns.Msg, error) { return readPackets(conn, id, question) })
	if err != nil || !m.Truncated {
		return m, err
	}
	return p.over(ctx, "tcp", append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...), //nolint:gosec // one question
		func(conn net.Conn) (*dns.Msg, error) { return readStream(conn, id, question) })
}

// over opens a connection of its own for a question: its random port is half of what an attacker has to guess.
func (p plain) over(ctx context.Context, network string, wire []byte, read func(net.Conn) (*dns.Msg, error)) (*dns.Msg, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, p.addr)
	if err != nil {
		return nil, fmt.Errorf("dial nameserver: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(wire); err != nil {
		return nil, fmt.Errorf("send question: %w", err)
	}
	return read(conn)
}

// readPackets waits for the answer among whatever arrives. The socket is connected, so the kernel checks the sender.
func readPackets(conn net.Conn, id uint16, question dns.Question) (*dns.Msg, error) {
	buf := make([]byte, maxPacket)
	for range maxJunk {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		if m, err := readAnswer(buf[:n], id, question); err == nil {
			return m, nil
		}
	}
	return nil, errNotAnswer
}

func readStream(conn net.Conn, id uint16, question dns.Question) (*dns.Msg, error) {
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return readAnswer(body, id, question)
}

// newTransport makes a server of its address or, for DNS over HTTPS, its URL.
func newTransport(server string, client *http.Client) (transport, error) {
	if strings.Contains(server, "://") {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return nil, fmt.Errorf("nameserver %q: not an https URL", server)
		}
		return doh{url: u.String(), client: client}, nil
	}
	addr, err := serverAddress(server)
	return plain{addr: addr}, err
}
