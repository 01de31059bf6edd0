package localapi

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

func TestAConnectionThatWasTakenOverKeepsNobodyWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		conn, err := switchOver(w, "test")
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, conn) // until the client leaves
		_ = conn.Close()
	})
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(newBounded(l, 1)) }()
	defer func() { _ = server.Close(); <-served }()
	get := func(route string) net.Conn {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "unix", path)
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(time.Minute))
		}
		if err == nil {
			_, err = io.WriteString(conn, "GET "+route+" HTTP/1.0\r\n\r\n")
		}
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		if err != nil {
			t.Fatalf("%s: %v", route, err)
		}
		return conn
	}
	stream := get("/stream")
	for range 2 { // one after another: the only place is free, and taken only as long as each lasts
		_ = get("/hello").Close()
	}
	_ = stream.Close()
}
