package localapi

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"capsem/core/safesocket"
)

// pair is the two ends of a unix socket.
func pair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := safesocket.Listen(t.Context(), filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := safesocket.Dial(t.Context(), filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestAConnectionEndsWithAClientWhoseBytesNobodyTakes(t *testing.T) {
	for name, halves := range map[string]bool{"whole": false, "by halves": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, ours := pair(t)
			worker, guest := pair(t)
			done := make(chan struct{})
			go func() {
				splice(context.WithoutCancel(t.Context()), &switched{Conn: ours, r: ours}, worker, halves)
				close(done)
			}()
			for block := make([]byte, 1<<16); ; {
				if err := client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				if _, err := client.Write(block); errors.Is(err, os.ErrDeadlineExceeded) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if err := client.Close(); err != nil {
				t.Fatal(err)
			}
			<-done // the other end of guest stays open and reads nothing
			if err := guest.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
