package live

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"capsem/core/export"
	"capsem/core/fault"
	"capsem/core/ledger"
)

const (
	// dialTime and writeTime bound making a connection and sending one message.
	dialTime, writeTime = 10 * time.Second, 10 * time.Second
	// maxDatagram and maxStream bound a message, in bytes: most receivers take that much.
	maxDatagram, maxStream = 8 << 10, 256 << 10
)

// message is one line; entry is the event that it is of, if it is of one.
type message struct {
	session string
	entry   *ledger.Entry
	line    []byte
	// asIs says that the session is not to be put into the line: its format has a place of its own for that.
	asIs bool
}

// sender sends messages. Its methods may be called at the same time.
type sender interface {
	// send sends one. again says that it is worth it to try again; rejected is how many events the other end did not want.
	send(ctx context.Context, msg *message) (rejected int64, again bool, err error)
	close()
}

// nowhere is where nothing can be sent to.
type nowhere struct{}

func (nowhere) send(context.Context, *message) (int64, bool, error) { return 0, true, errStopped }
func (nowhere) close()                                              {}

// Check refuses an address that a target cannot have; an empty one is none.
func Check(target, to string) error {
	if to == "" {
		return nil
	}
	if target == OTLP {
		_, err := export.Endpoint(to)
		return err //nolint:wrapcheck // a fault
	}
	_, err := parse(target, to)
	return err
}

// address is where lines go.
type address struct{ network, at string }

// parse reads the address of a syslog or a stream.
func parse(target, to string) (address, error) {
	u, err := url.Parse(to)
	example := map[string]string{Syslog: "unix:///dev/log, udp://HOST:514, tcp://HOST:601 or tls://HOST:6514", Stream: "unix:///PATH, tcp://HOST:PORT, tls://HOST:PORT or file:///PATH"}[target]
	bad := fault.New(fault.Invalid, "%.200q is no address of a %s", to, target).WithHint("such as %s", example)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return address{}, bad
	}
	switch {
	case u.Scheme == "unix" || u.Scheme == "file" && target == Stream:
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" {
			return address{}, bad
		}
		return address{u.Scheme, u.Path}, nil
	case u.Scheme == "tcp" || u.Scheme == "tls" || u.Scheme == "udp" && target == Syslog:
		if u.Hostname() == "" || u.Port() == "" || u.Path != "" && u.Path != "/" {
			return address{}, bad
		}
		return address{u.Scheme, u.Host}, nil
	}
	return address{}, bad
}

// newSender makes what sends to a target.
func (m *Manager) newSender(name string, t Target) (sender, error) {
	if name == OTLP {
		to, err := export.Endpoint(t.To)
		if err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
		return &collector{export.NewCollector(to)}, nil
	}
	a, err := parse(name, t.To)
	if err != nil {
		return nil, err
	}
	p := &pipe{address: a}
	if name == Syslog {
		p.syslog = &syslog{host: m.cfg.Host, version: m.cfg.Version}
	}
	return p, nil
}

// collector sends OTLP.
type collector struct{ *export.Collector }

func (c *collector) send(ctx context.Context, msg *message) (int64, bool, error) {
	return c.Post(ctx, msg.line) //nolint:wrapcheck // a fault
}

func (c *collector) close() { c.Close() }

// pipe sends lines over a connection, as messages of syslog or as they are.
type pipe struct {
	address
	syslog *syslog

	mu   sync.Mutex
	conn *connection
}

// connection is an open one. Of a stream gone is closed when the other end has closed it: nothing else ever comes from there.
type connection struct {
	net.Conn
	datagrams bool
	gone      chan struct{}
}

func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

func (p *pipe) drop() {
	if p.conn != nil {
		_ = p.conn.Close()
		if !p.conn.datagrams {
			<-p.conn.gone
		}
		p.conn = nil
	}
}

func (p *pipe) send(ctx context.Context, msg *message) (int64, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.network == "file" {
		return 0, true, appendTo(p.at, line(msg, maxStream))
	}
	if p.conn != nil {
		select {
		case <-p.conn.gone:
			p.drop()
		default:
		}
	}
	if p.conn == nil {
		var err error
		if p.conn, err = p.dial(ctx); err != nil {
			return 0, true, err
		}
	}
	out := p.framed(msg)
	if err := p.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		p.drop()
		return 0, true, fmt.Errorf("send event: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := p.conn.Write(out)
	stop()
	if err != nil {
		p.drop()
		return 0, true, fmt.Errorf("send event: %w", err)
	}
	return 0, false, nil
}

// framed is a message as it is sent.
func (p *pipe) framed(msg *message) []byte {
	limit := maxStream
	if p.conn.datagrams {
		limit = maxDatagram
	}
	if p.syslog == nil {
		return line(msg, limit)
	}
	out := p.syslog.format(msg, limit)
	if !p.conn.datagrams { // counted, as RFC 6587 and RFC 5425 have it
		out = append(fmt.Appendf(nil, "%d ", len(out)), out...)
	}
	return out
}

func (p *pipe) dial(ctx context.Context) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	c := &connection{gone: make(chan struct{})}
	var err error
	switch p.network {
	case "unix":
		if p.syslog != nil { // one that takes datagrams, as /dev/log does, or else a stream
			c.Conn, err = d.DialContext(ctx, "unixgram", p.at)
			if c.datagrams = err == nil; c.datagrams {
				break
			}
		}
		c.Conn, err = d.DialContext(ctx, "unix", p.at)
	case "udp":
		c.datagrams = true
		c.Conn, err = d.DialContext(ctx, "udp", p.at)
	case "tls":
		c.Conn, err = (&tls.Dialer{NetDialer: &d, Config: &tls.Config{MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", p.at)
	default:
		c.Conn, err = d.DialContext(ctx, p.network, p.at)
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if c.datagrams {
		return c, nil
	}
	go func() { // ends with the connection; drop waits for it
		defer close(c.gone)
		_, _ = io.Copy(io.Discard, c.Conn)
	}()
	return c, nil
}

// line is an event as a line of a stream, with the session it is of.
func line(msg *message, limit int) []byte {
	out := withSession(msg, limit)
	return append(out, '\n')
}

// withSession puts the session into the JSON of an event. An event that is too long is told of without what it has.
func withSession(msg *message, limit int) []byte {
	if msg.asIs && len(msg.line) < limit {
		return bytes.Clone(msg.line)
	}
	id, err := json.Marshal(msg.session)
	if err == nil && !msg.asIs && bytes.HasPrefix(msg.line, []byte(`{"`)) && len(msg.line)+len(id)+16 <= limit {
		return append(append(append([]byte(`{"session":`), id...), ','), msg.line[1:]...)
	}
	short := struct {
		Session string `json:"session"`
		Kind    string `json:"kind,omitempty"`
		ID      int64  `json:"id,omitempty"`
		Time    string `json:"time,omitempty"`
		Cut     bool   `json:"cut"`
	}{Session: msg.session, Cut: true}
	if msg.entry != nil {
		short.Kind, short.ID, short.Time = msg.entry.Kind, msg.entry.ID, msg.entry.Time
	}
	out, err := json.Marshal(short)
	if err != nil { // texts and numbers only
		return []byte(`{"cut":true}`)
	}
	return out
}

// appendTo adds to a file. It is opened each time: somebody may have moved it away. A pipe that nobody reads is not waited for.
func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}
