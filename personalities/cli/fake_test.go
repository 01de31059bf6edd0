package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/proto"
)

// asCapsem makes this test binary be capsem, for tests that need a real process: signals, exit codes, a terminal.
const asCapsem = "CAPSEM_TEST_AS_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(asCapsem) == "" {
		os.Exit(m.Run())
	}
	err := Run(context.Background(), entry.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Log: slog.New(slog.DiscardHandler),
	})
	if line := fault.Line(err); line != "" {
		fmt.Fprintln(os.Stderr, "capsem:", line)
	}
	os.Exit(fault.ExitCode(err))
}

// fakeService is the local API with scripted answers. It records what it was asked.
type fakeService struct {
	t    *testing.T
	home paths.Home
	mux  *http.ServeMux

	mu    sync.Mutex
	calls []string
}

// newService listens on the service socket of a fresh home.
func newService(t *testing.T) *fakeService {
	t.Helper()
	dir, err := os.MkdirTemp("", "cs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fakeService{t: t, home: paths.Home(dir), mux: http.NewServeMux()}
	if err := os.MkdirAll(f.home.Run(), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", f.home.ServiceSocket())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.home.ServiceSocket(), 0o600); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	f.answer("GET /version", api.VersionReply{
		Version: buildinfo.Version, Commit: buildinfo.Commit, BuildTime: buildinfo.BuildTime, Protocol: proto.Version, PID: os.Getpid(),
	})
	return f
}

// ServeHTTP records the call and answers as scripted.
func (f *fakeService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("read body: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.URL.Path != "/version" {
		f.note(strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + strings.TrimSpace(string(body))))
	}
	w.Header().Set(api.VersionHeader, buildinfo.Version)
	f.mux.ServeHTTP(w, r)
}

func (f *fakeService) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

// asked returns what was asked so far but for the version.
func (f *fakeService) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// wantCalls checks the calls in order.
func (f *fakeService) wantCalls(want ...string) {
	f.t.Helper()
	if got := f.asked(); !slices.Equal(got, want) {
		f.t.Errorf("the service was asked\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// answer scripts a JSON answer to a route.
func (f *fakeService) answer(route string, v any) {
	f.mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, v) })
}

// refuse scripts an error.
func (f *fakeService) refuse(route string, e *fault.Error) {
	f.mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, fault.HTTPStatus(e), api.ErrorBody{Error: api.ErrorInfo{Code: string(e.Code), Message: e.Message, Hint: e.Hint}})
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// stream scripts an upgraded exec: script gets the request, the frames from the client and the connection.
func (f *fakeService) stream(id string, script func(req api.ExecRequest, frames *proto.StreamReader, conn net.Conn)) {
	f.mux.HandleFunc("POST /exec/"+id+"/stream", func(w http.ResponseWriter, _ *http.Request) {
		conn, rest := f.upgrade(w, api.UpgradeStream)
		defer conn.Close()
		frames := proto.NewStreamReader(rest)
		kind, data, err := frames.Next()
		if err != nil || kind != proto.KindData {
			f.t.Errorf("first frame of an exec: kind %d, %v", kind, err)
			return
		}
		f.note("first frame " + string(data))
		var req api.ExecRequest
		if err := json.Unmarshal(data, &req); err != nil {
			f.t.Errorf("first frame of an exec: %v", err)
		}
		script(req, frames, conn)
	})
}

func (f *fakeService) upgrade(w http.ResponseWriter, token string) (net.Conn, io.Reader) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.t.Error(err)
		panic(http.ErrAbortHandler)
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", token)
	if err != nil {
		f.t.Error(err)
	}
	return conn, rw
}

// send writes one frame; v is bytes, text or what becomes JSON.
func send(conn net.Conn, kind proto.Kind, v any) {
	var data []byte
	switch v := v.(type) {
	case []byte:
		data = v
	case string:
		data = []byte(v)
	default:
		data, _ = json.Marshal(v)
	}
	_ = proto.WriteStreamFrame(conn, kind, data) // the client may be gone: that is what some tests are about
}

// newWorker listens as the worker of a VM and plays a terminal session.
func newWorker(t *testing.T, path string, script func(open *proto.TerminalOpen, frames *proto.StreamReader, conn net.Conn)) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveWorker(t, conn, script)
		}
	}()
}

func serveWorker(t *testing.T, conn net.Conn, script func(open *proto.TerminalOpen, frames *proto.StreamReader, conn net.Conn)) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	var hello proto.WorkerHello
	var req proto.WorkerRequest
	err := errors.Join(
		proto.WriteFrame(conn, proto.WorkerHello{Protocol: proto.Version, Build: buildinfo.Version, PID: os.Getpid(), ID: "vm", BootNonce: "n"}),
		proto.ReadFrame(in, proto.MaxFrame, &hello),
		proto.ReadFrame(in, proto.MaxFrame, &req),
		req.Validate(),
		proto.WriteFrame(conn, proto.WorkerReply{}),
	)
	if err != nil || req.Op != proto.OpTerminal {
		t.Errorf("worker: op %q: %v", req.Op, err)
		return
	}
	script(req.Terminal, proto.NewStreamReader(in), conn)
}

// result is what one run of the command line left behind.
type result struct {
	stdout, stderr string
	code           int
}

// capsem runs the command line in this process, with no terminal and the given words.
func (f *fakeService) capsem(stdin io.Reader, args ...string) result {
	f.t.Helper()
	var stdout, stderr bytes.Buffer
	env := f.env(args...)
	env.Stdout, env.Stderr = &stdout, &stderr
	if stdin != nil {
		env.Stdin = stdin
	}
	err := Run(f.t.Context(), env)
	if line := fault.Line(err); line != "" {
		fmt.Fprintln(&stderr, "capsem:", line)
	}
	return result{stdout.String(), stderr.String(), fault.ExitCode(err)}
}

// env is a command line without a terminal, whose output is thrown away.
func (f *fakeService) env(args ...string) entry.Env {
	return entry.Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Log: slog.New(slog.DiscardHandler),
		Getenv: func(key string) string {
			return map[string]string{"CAPSEM_HOME": f.home.Dir(), "TERM": "xterm", "FROM_HOST": "yes", "HOME": f.home.Dir()}[key]
		},
	}
}
