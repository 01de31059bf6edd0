package client

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"capsem/core/proto"
)

// script is a connection whose other end has said everything already.
type script struct {
	net.Conn
	said *bytes.Reader
}

func (s script) Read(p []byte) (int, error) { return s.said.Read(p) }

func (script) Write(p []byte) (int, error) { return len(p), nil }

// FuzzUpgradeAnswer feeds what is not our service to the upgrade and the frames behind it.
func FuzzUpgradeAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: capsem-stream/1\r\n\r\n\x01\x00\x00\x00\x01x"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 64\r\n\r\n{\"error\":{\"code\":\"not_found\",\"message\":\"no VM\"}}"))
	f.Add([]byte("HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		req, err := request(t.Context(), http.MethodPost, "/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := switchOver(script{said: bytes.NewReader(said)}, req)
		if (conn == nil) == (err == nil) {
			t.Fatalf("got %v and %v", conn, err)
		}
		if err != nil {
			return
		}
		for frames := proto.NewStreamReader(conn); err == nil; {
			var data []byte
			if _, data, err = frames.Next(); len(data) > proto.MaxChunk {
				t.Fatalf("a frame of %d bytes", len(data))
			}
		}
		_, _ = io.Copy(io.Discard, conn)
	})
}
