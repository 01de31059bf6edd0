package egress

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// said is a connection whose other side has said all it will.
type said struct {
	net.Conn
	in *bytes.Reader
}

func (s *said) Read(p []byte) (int, error) { return s.in.Read(p) } //nolint:wrapcheck // as a connection does

func (*said) Write(p []byte) (int, error) { return len(p), nil }

// What follows the head of an answer is the target's, to the byte; and an answer that is no connection is never taken for one.
func FuzzProxyAnswer(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.0 200\r\nA: b\r\n\r\n", "HTTP/1.1 407 No\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 204 \r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n", "",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		conn := &said{in: bytes.NewReader(text)}
		err := (&proxy{host: "proxy.test", port: "80"}).connect(conn, target{host: "a.test", port: 443})
		if err != nil {
			_ = line(explainConnect(&proxy{host: "proxy.test", port: "80"}, target{host: "a.test", port: 443}, err))
			return
		}
		head, after, found := bytes.Cut(text, []byte("\r\n\r\n"))
		rest, readErr := io.ReadAll(conn)
		if !found || readErr != nil || !bytes.Equal(rest, after) || !bytes.HasPrefix(head, []byte("HTTP/1.")) {
			t.Errorf("%q is taken for a connection, after which comes %q", text, rest)
		}
	})
}
