package ledger

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"capsem/core/store"
)

const testSession = "20261123-120000-abcd"

func testKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := LoadOrCreateKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	p, _ := key.Public().(ed25519.PublicKey)
	return p
}

func testOptions(t testing.TB, key ed25519.PrivateKey) Options {
	t.Helper()
	return Options{Session: testSession, Key: key, Log: quiet(), Bodies: 4096, SignEvery: time.Hour}
}

func open(t testing.TB, path string, o Options) *Writer {
	t.Helper()
	w, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func closeWriter(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, path string, key ed25519.PrivateKey) Report {
	t.Helper()
	r, err := Verify(t.Context(), path, Expect{Key: public(key), Session: testSession})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// oneOfEach is a row for every table but drops, with every column filled.
func oneOfEach(n int) []Row {
	at := time.Date(2026, 11, 23, 12, 0, n, 0, time.UTC)
	p := Process{Name: "curl", PID: int64(100 + n), CommandLine: "curl -s https://example.com", Parents: "bash sshd"}
	return []Row{
		NetEvent{
			Time: at, Domain: "example.com", Port: 443, Decision: "allowed", Rule: "r1", Reason: "ok", AskID: "ask-1", Process: p, Method: "GET", Path: "/a",
			Query: "q=1", Status: 200, Sent: 12, Received: 3400, Duration: 20 * time.Millisecond, RequestHeaders: http.Header{"Accept": {"*/*"}},
			ResponseHeaders: http.Header{"Server": {"x"}}, RequestBody: "hello", ResponseBody: "world", Type: "https", Error: "none", Credential: "anthropic", Remote: "192.0.2.1:443",
		},
		DNSEvent{
			Time: at, Name: "example.com", Type: "A", Decision: "denied", Rule: "r2", Reason: "no", Code: "NXDOMAIN", Answer: "-", Transport: "udp", Process: p,
			Duration: time.Millisecond, Error: "none",
		},
		ModelCall{
			Time: at, Provider: "anthropic", Model: "m", Process: p, Method: "POST", Path: "/v1/messages", Stream: true, SystemPrompt: "be good", RequestBody: "{}",
			Messages: 3, Tools: 2, RequestBytes: 10, ResponseBytes: 20, MessageID: "msg", Status: 200, Text: "hi", Thinking: "hm", StopReason: "end",
			InputTokens: 100, OutputTokens: 50, Duration: time.Second, CostUSD: 0.25, TraceID: "t1", Usage: "{}",
			Calls:   []ToolCall{{Index: 0, CallID: "c1", Tool: "bash", Arguments: "{}", Origin: "native", MCPCall: 1}},
			Results: []ToolResponse{{CallID: "c0", Content: "ok", Failed: true}},
		},
		MCPCall{
			Time: at, Server: "github", Method: "tools/call", Tool: "search", RequestID: "1", Request: "{}", Response: "{}", Decision: "allowed", Rule: "r3", AskID: "ask-7",
			Duration: time.Second, Error: "none", Process: p, Sent: 1, Received: 2,
		},
		FileEvent{Time: at, Action: "modified", Path: fmt.Sprintf("src/%d.go", n), Size: 99, PID: 41},
		SnapshotEvent{Time: at, Slot: n, Origin: "manual", Name: "before", Files: 7},
		ExecEvent{
			Time: at, ExecID: strconv.Itoa(n), Command: "make test", ExitCode: 2, Duration: time.Second, Stdout: "ok", Stderr: "bad", StdoutBytes: 2, StderrBytes: 3,
			Source: "api", MCPCall: 1, TraceID: "t1", Process: p,
		},
		AuditEvent{
			Time: at, PID: 5, PPID: 4, UID: 1000, Exe: "/bin/ls", Comm: "ls", Argv: "ls -l", Cwd: "/root", ExitCode: 1, SessionID: 3, TTY: "pts0", AuditID: "77",
			ExecEvent: 1, ParentExe: "/bin/bash",
		},
		Approval{
			Time: at, AskID: "ask-1", Status: "approved", Scope: "once", Rule: "r1", Reason: "asks", Process: p, Method: "POST", URL: "https://example.com/x?y=1",
			Size: 5, AnsweredBy: "cli", Waited: time.Second,
		},
		Lifecycle{Time: at, Event: "booted", Detail: "warm", Duration: 300 * time.Millisecond},
		Drop{Time: at, Kind: "net", Count: 3, First: at, Last: at, Reason: "queue full"},
		Substitution{
			Time: at, Action: "injected", Credential: "mine", Kind: "github", Domain: "api.github.com", Place: "header authorization", Form: "plain",
			Process: Process{Name: "git", PID: 40},
		},
		Detection{
			Time: at, Detector: "secrets", Rule: "aws-access-key", Outcome: "reported", Domain: "example.com", Place: "body", Process: Process{Name: "curl", PID: 41},
		},
	}
}

// testTime is some moment.
var testTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rowsOfEach is how many rows oneOfEach makes: a model call brings two.
const rowsOfEach = 15

// filled makes a closed record with n rows for every table, signed twice.
func filled(t testing.TB, key ed25519.PrivateKey, session string, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "session.db")
	o := testOptions(t, key)
	o.Session = session
	w := open(t, path, o)
	for i := range n {
		if i == n/2 {
			if err := w.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range oneOfEach(i) {
			w.Record(row)
		}
	}
	closeWriter(t, w)
	return path
}

// tamper changes a closed database as anybody with sqlite3 could.
func tamper(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func query(t testing.TB, path, text string) [][]any {
	t.Helper()
	r, err := store.Inspect(t.Context(), path, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return r.Rows
}
