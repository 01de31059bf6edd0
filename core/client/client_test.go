package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// TestMain lets this binary be a little service, so that starting one is tested with real processes.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != serviceName {
		os.Exit(m.Run())
	}
	home := paths.Home(os.Getenv("CAPSEM_HOME"))
	if os.Getenv("LANG") == "fail" {
		os.Stderr.WriteString("capsem: the stars are wrong\n")
		os.Exit(1)
	}
	if _, err := guard.Acquire(home.ServiceLock()); errors.Is(err, guard.ErrHeld) {
		os.Exit(0)
	}
	l, err := safesocket.Listen(context.Background(), home.ServiceSocket())
	if err != nil {
		os.Exit(2)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, api.VersionReply{PID: os.Getpid()}) })
	mux.HandleFunc("POST /shutdown", func(http.ResponseWriter, *http.Request) { os.Exit(0) })
	_ = http.Serve(l, mux)
	os.Exit(3)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// serve is a service in this process with the given routes.
func serve(t *testing.T, mux *http.ServeMux) *Client {
	t.Helper()
	home := shortHome(t)
	l, err := safesocket.Listen(t.Context(), home.ServiceSocket())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return New(home, Options{})
}

func shortHome(t *testing.T) paths.Home {
	t.Helper()
	dir, err := os.MkdirTemp("", "cc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home := paths.Home(dir)
	if err := os.MkdirAll(home.Run(), 0o700); err != nil {
		t.Fatal(err)
	}
	return home
}

func TestErrorsAreTheServicesOwnWords(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info/{id}", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("id") {
		case "odd/../name":
			reply(w, 404, api.ErrorBody{Error: api.ErrorInfo{Code: "not_found", Message: "no VM", Hint: "capsem list"}})
		case "html":
			http.Error(w, "<h1>oops</h1>", http.StatusBadGateway)
		case "nonsense":
			_, _ = io.WriteString(w, "{")
		case "hang-up":
			panic(http.ErrAbortHandler)
		}
	})
	c := serve(t, mux)
	for id, want := range map[string]fault.Code{
		"odd/../name": fault.NotFound, "html": fault.Internal, "nonsense": fault.Internal, "hang-up": fault.Unavailable,
	} {
		if _, err := c.Info(t.Context(), id); !fault.Is(err, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := New(shortHome(t), Options{}).List(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Line(err), "not running") {
		t.Errorf("without a service: %v", err)
	}
}

func TestFilesStreamBothWays(t *testing.T) {
	const size = 8 << 20
	mux := http.NewServeMux()
	mux.HandleFunc("POST /files/vm/content", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.URL.Query().Get("path") != "/a b" || r.URL.Query().Get("mode") != "755" {
			t.Errorf("got %s %v", r.URL, err)
		}
		reply(w, 200, api.FileReply{Success: true, Info: &proto.FileInfo{Size: n}})
	})
	mux.HandleFunc("GET /files/vm/content", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
		panic(http.ErrAbortHandler)
	})
	c := serve(t, mux)
	got, err := c.WriteFile(t.Context(), "vm", "/a b", 0o755, io.LimitReader(zeros{}, size))
	if err != nil || got.Info.Size != size {
		t.Errorf("wrote %+v, %v", got, err)
	}
	content, err := c.ReadFile(t.Context(), "vm", "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if n, err := io.Copy(io.Discard, content); err == nil || n > size {
		t.Errorf("a broken answer reads as %d bytes and a clean end", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUpgradeCarriesTheRequestAndThenRawBytes(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /exec/vm/stream", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: capsem-stream/1\r\n\r\n")
		frames := proto.NewStreamReader(rw)
		var text []byte
		for {
			_, data, err := frames.Next()
			text = append(text, data...)
			if err != nil || len(data) < proto.MaxChunk {
				break
			}
		}
		var req api.ExecRequest
		if err := json.Unmarshal(text, &req); err != nil {
			t.Error(err)
		}
		_ = proto.WriteStreamFrame(conn, proto.KindStdout, []byte(req.Command[:3]))
	})
	c := serve(t, mux)
	for _, length := range []int{3, proto.MaxChunk, 150 << 10} {
		conn, err := c.ExecStream(t.Context(), "vm", api.ExecRequest{Command: strings.Repeat("x", length)})
		if err != nil {
			t.Fatal(err)
		}
		if kind, data, err := proto.NewStreamReader(conn).Next(); err != nil || kind != proto.KindStdout || string(data) != "xxx" {
			t.Errorf("%d bytes: got %v %q %v", length, kind, data, err)
		}
		_ = conn.Close()
	}
	if _, err := c.Forward(t.Context(), "vm", 80); err == nil {
		t.Error("an unknown route upgrades")
	}
}

func TestClientsThatStartTheServiceAtOnceGetTheSameOne(t *testing.T) {
	home := shortHome(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	pids := make([]int, 4)
	for i := range pids {
		wg.Go(func() {
			c := New(home, Options{Executable: self})
			if err := c.EnsureService(t.Context()); err != nil {
				t.Error(err)
				return
			}
			v, err := c.Version(t.Context())
			if err != nil {
				t.Error(err)
			}
			pids[i] = v.PID
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == 0 {
			t.Errorf("services %v", pids)
		}
	}
	_, _ = New(home, Options{}).Shutdown(t.Context()) // it exits without an answer
}

func TestAServiceThatCannotStartSaysWhy(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := New(shortHome(t), Options{Executable: self, Getenv: func(name string) string {
		return map[string]string{"LANG": "fail"}[name]
	}})
	if err := c.EnsureService(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Line(err), "the stars are wrong") {
		t.Errorf("got %v", err)
	}
}
