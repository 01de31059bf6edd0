package live

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"capsem/core/ledger"
)

// secret is in what is recorded and must reach no target.
const secret = "sk-ant-api03-0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz-AAAA"

// patience bounds every wait.
const patience = 30 * time.Second

// home is what a service has: records of sessions, of which some still grow.
type home struct {
	t       *testing.T
	dir     string
	key     ed25519.PrivateKey
	log     *logged
	targets map[string]Target
	mu      sync.Mutex
	open    map[string]*ledger.Writer
}

// logged is a log that a test can read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newHome(t *testing.T, targets map[string]Target) *home {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &home{t: t, dir: t.TempDir(), key: key, log: &logged{}, targets: targets, open: map[string]*ledger.Writer{}}
}

func (h *home) db(session string) string { return filepath.Join(h.dir, session, "session.db") }
func (h *home) state(session, target string) string {
	return filepath.Join(h.dir, session, "export-"+target+".json")
}

func (h *home) running(session string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[session] != nil
}

// begin opens the record of a session.
func (h *home) begin(session string) *ledger.Writer {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.db(session)), 0o700); err != nil {
		h.t.Fatal(err)
	}
	w, err := ledger.Open(h.t.Context(), h.db(session), ledger.Options{Session: session, Key: h.key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	h.open[session] = w
	h.mu.Unlock()
	return w
}

// end is the end of a session's VM.
func (h *home) end(session string) {
	h.t.Helper()
	h.mu.Lock()
	w := h.open[session]
	h.mu.Unlock()
	if err := w.Close(context.WithoutCancel(h.t.Context())); err != nil {
		h.t.Error(err)
	}
	h.mu.Lock()
	delete(h.open, session)
	h.mu.Unlock()
}

// manager runs a Manager until stop is called.
func (h *home) manager(change ...func(*Config)) (m *Manager, stop func()) {
	cfg := Config{
		Targets: func() (map[string]Target, error) { return h.targets, nil }, Running: h.running, DB: h.db, State: h.state,
		Version: `1.0"]\`, Host: "a host", Log: slog.New(slog.NewTextHandler(h.log, nil)), Tick: 10 * time.Millisecond, Pause: 10 * time.Millisecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	m = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	h.t.Cleanup(stop)
	return m, stop
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it did not come to that: " + what)
		}
	}
}

// request is an event with a number to know it by.
func request(n int) ledger.NetEvent {
	return ledger.NetEvent{
		Time: time.Now(), Domain: "api.test", Port: 443, Decision: "allowed", Method: "GET", Path: fmt.Sprintf("/%d", n), Query: "key=" + secret, Status: 200, Type: "https",
		Duration: time.Millisecond,
	}
}

// got collects what a target got.
type got struct {
	mu    sync.Mutex
	lines []string
}

func (g *got) add(line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines = append(g.lines, line)
}

func (g *got) all() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.lines...)
}

// paths are the numbers of the requests that a target got, in their order, with how often.
func (g *got) paths(t *testing.T) (out []string) {
	t.Helper()
	for _, line := range g.all() {
		var e struct {
			Session string
			Kind    string
			Fields  map[string]any
		}
		if err := json.Unmarshal([]byte(line[strings.IndexByte(line, '{'):]), &e); err != nil || e.Session == "" {
			t.Fatalf("%v: %s", err, line)
		}
		if p, ok := e.Fields["path"].(string); ok && e.Kind == "net" {
			out = append(out, e.Session+p)
		}
	}
	return out
}

func (g *got) has(t *testing.T, path string) bool {
	t.Helper()
	return slices.Contains(g.paths(t), path)
}

// clean fails if a target got what it must not.
func (g *got) clean(t *testing.T) {
	t.Helper()
	for _, line := range g.all() {
		if strings.Contains(line, secret) {
			t.Errorf("a secret: %s", line)
		}
	}
}

func TestAddressesOfTargets(t *testing.T) {
	for _, c := range []struct {
		target, to string
		good       bool
	}{
		{OTLP, "", true},
		{OTLP, "http://localhost:4318", true},
		{OTLP, "https://name:word@collector.test/otlp", true},
		{OTLP, "tcp://x:1", false},
		{Syslog, "unix:///dev/log", true},
		{Syslog, "udp://host:514", true},
		{Syslog, "tcp://[::1]:601", true},
		{Syslog, "tls://host:6514", true},
		{Syslog, "file:///x", false},
		{Syslog, "udp://host", false},
		{Syslog, "unix://dev/log", false},
		{Syslog, "udp://host:1/x", false},
		{Syslog, "host:514", false},
		{Stream, "file:///var/log/x", true},
		{Stream, "unix:///x", true},
		{Stream, "tcp://host:1", true},
		{Stream, "udp://host:1", false},
		{Stream, "file:///", false},
		{Stream, "tcp://u:p@host:1", false},
		{Stream, "%", false},
	} {
		if err := Check(c.target, c.to); (err == nil) != c.good {
			t.Errorf("%s %q: %v", c.target, c.to, err)
		}
	}
}

func TestAnEventThatIsTooLongIsToldOfWithoutItsFields(t *testing.T) {
	e := &ledger.Entry{ID: 7, Kind: "net", Time: "2026-11-29T00:00:00Z", Fields: map[string]any{"path": strings.Repeat("x", 1000)}}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{100, 5000} {
		out := withSession(&message{session: "s", entry: e, line: text}, limit)
		var v map[string]any
		if err := json.Unmarshal(out, &v); err != nil || v["session"] != "s" || v["kind"] != "net" || (v["cut"] != nil) != (limit == 100) {
			t.Errorf("%d: %v %s", limit, err, out)
		}
	}
}

func TestAPipeThatNobodyReadsIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := appendTo(path, []byte("x\n")); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("%v", err)
	}
}
