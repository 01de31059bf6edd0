package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/ledger"
)

const session = "20261123-120000-abcd"

// secret is in what is recorded, wherever a guest could put it, and must be in no export.
const secret = "sk-ant-api03-0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz-AAAA"

var began = time.Date(2026, 11, 23, 12, 0, 0, 123000, time.UTC)

// record writes a session's record.
func record(t testing.TB, rows ...ledger.Row) Source {
	t.Helper()
	dir := t.TempDir()
	key, err := ledger.LoadOrCreateKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	src := Source{Path: filepath.Join(dir, "session.db"), Session: session}
	w, err := ledger.Open(t.Context(), src.Path, ledger.Options{Session: session, Key: key, Log: slog.New(slog.DiscardHandler), Bodies: 4096})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		w.Record(r)
	}
	if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return src
}

// everything is a row of each kind, not in the order of their times.
func everything() []ledger.Row {
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	h := http.Header{"Authorization": {"Bearer " + secret}, "User-Agent": {"curl/8"}, "X-Api-Key": {secret}, "Content-Type": {"application/json"}}
	return []ledger.Row{
		ledger.ExecEvent{Time: at(9), ExecID: "e1", Command: "curl -H 'Authorization: Bearer " + secret + "' x", ExitCode: 2, Duration: time.Second, Stdout: "out\x1b]0;evil\x07\nmore", Stderr: "bad", Source: "api"},
		ledger.NetEvent{
			Time: at(1), Domain: "api.test", Port: 443, Decision: "allowed", Rule: "r", Method: "POST", Path: "/v1/messages", Query: "key=" + secret + "&q=a+b%26", Status: 200,
			Sent: 10, Received: 20, Duration: 1500 * time.Millisecond, RequestHeaders: h, ResponseHeaders: http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Set-Cookie": {secret}},
			RequestBody: `{"a":1}`, ResponseBody: "hello", Type: "h2", Remote: "[2001:db8::1]:443", Process: ledger.Process{Name: "node", PID: 7},
		},
		ledger.NetEvent{Time: at(2), Domain: "bad.test", Port: 8443, Decision: "denied", Rule: "no", Reason: "never", Method: "PATCH", Path: "/x", Status: 403, Type: "https"},
		ledger.NetEvent{Time: at(3), Domain: "2001:db8::2", Port: 443, Decision: "allowed", Method: "GET", Path: "/ws", Status: 101, Type: "websocket"},
		ledger.NetEvent{Time: at(4), Domain: "ssh.test", Port: 22, Decision: "denied", Type: "tcp"},
		ledger.DNSEvent{Time: at(0), Name: "api.test", Type: "A", Decision: "allowed", Code: "NOERROR", Answer: "100.64.0.1"},
		ledger.ModelCall{
			Time: at(5), Provider: "anthropic", Model: "claude-x", Method: "POST", Path: "/v1/messages", Status: 200, InputTokens: 100, OutputTokens: 7, CostUSD: 0.25,
			Duration: 2 * time.Second, StopReason: "tool_use", TraceID: "t1", Calls: []ledger.ToolCall{{CallID: "c1", Tool: "bash"}},
		},
		ledger.MCPCall{Time: at(6), Server: "gh", Method: "tools/call", Tool: "search", Decision: "error", Error: "it broke"},
		ledger.FileEvent{Time: at(7), Action: "created", Path: "src/a.go", Size: 3},
		ledger.AuditEvent{Time: at(8), PID: 12, PPID: 1, Exe: "/usr/bin/git", Comm: "git", Argv: "git status"},
		ledger.Lifecycle{Time: at(10), Event: "stopped"},
		ledger.Detection{Time: at(11), Detector: "secrets", Rule: "aws", Outcome: "denied", Domain: "bad.test", Place: "body"},
		ledger.Substitution{Time: at(12), Action: "injected", Credential: "anthropic", Domain: "api.test"},
	}
}

func exported(t testing.TB, src Source, format string) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), &b, src, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func jsonLines(t testing.TB, text string) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, v)
	}
	return out
}

func TestNoExportHasACredential(t *testing.T) {
	src := record(t, everything()...)
	for _, f := range Formats() {
		if text := exported(t, src, f); strings.Contains(text, secret) || len(text) < 100 || MediaType(f) == "" {
			t.Errorf("%s:\n%s", f, text)
		}
	}
	var unknown *fault.Error
	if err := Write(t.Context(), &bytes.Buffer{}, src, "pcap"); !errors.As(err, &unknown) {
		t.Errorf("an unknown format: %v", err)
	}
}

func TestLinesAreAllEventsInTheOrderOfTheirTimes(t *testing.T) {
	rows := everything()
	for i := range 300 { // more than are held at once
		rows = append(rows, ledger.FileEvent{Time: began.Add(time.Duration(300-i) * time.Millisecond), Action: "modified", Path: strconv.Itoa(i)})
	}
	last, n := "", 0
	for _, v := range jsonLines(t, exported(t, record(t, rows...), JSONL)) {
		at, _ := v["time"].(string)
		if at < last || v["kind"] == "" || v["fields"] == nil {
			t.Errorf("%s after %s: %v", at, last, v)
		}
		last = at
		n++
	}
	if n != len(rows) {
		t.Errorf("%d events of %d", n, len(rows))
	}
}

func TestTheArchiveIsHAR(t *testing.T) {
	for _, rows := range [][]ledger.Row{nil, everything()} {
		var doc struct {
			Log struct {
				Version string
				Creator struct{ Name, Version string }
				Entries []map[string]any
			}
		}
		if err := json.Unmarshal([]byte(exported(t, record(t, rows...), HAR)), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Log.Version != "1.2" || doc.Log.Creator.Name == "" || doc.Log.Creator.Version == "" || len(doc.Log.Entries) != min(len(rows), 3) {
			t.Fatalf("%+v", doc)
		}
		for _, e := range doc.Log.Entries {
			conforms(t, "HAR", e, object{
				"startedDateTime": "time", "time": 0.0, "cache": object{}, "timings": object{"send": 0.0, "wait": 0.0, "receive": 0.0},
				"request": object{
					"method": "", "url": "url", "httpVersion": "", "cookies": []any{}, "headers": []any{object{"name": "", "value": "?"}}, "queryString": []any{object{"name": "", "value": "?"}},
					"headersSize": 0.0, "bodySize": 0.0,
				},
				"response": object{
					"status": 0.0, "statusText": "?", "httpVersion": "", "cookies": []any{}, "headers": []any{object{"name": "", "value": "?"}},
					"content": object{"size": 0.0, "mimeType": "?"}, "redirectURL": "?", "headersSize": 0.0, "bodySize": 0.0,
				},
			})
			timings, _ := e["timings"].(object)
			all := 0.0
			for _, v := range timings {
				all += max(0, v.(float64)) //nolint:forcetypeassert // conforms has looked
			}
			if all != e["time"] {
				t.Errorf("the parts of the time are %v, all is %v", all, e["time"])
			}
		}
	}
	text := exported(t, record(t, everything()...), HAR)
	for _, want := range []string{
		`"url":"https://bad.test:8443/x"`, `"url":"wss://[2001:db8::2]/ws"`, `{"name":"q","value":"a b\u0026"}`, `"mimeType":"text/plain; charset=utf-8"`, `"text":"hello"`,
		`"serverIPAddress":"2001:db8::1"`, `"httpVersion":"HTTP/2.0"`, `"matched_rule":"no"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// conforms compares a value with an example: what the example has must be there, of the same kind. "" is a text that is not empty, "?" any, "time" and "url"
// such a text; a list's first element is that of all.
func conforms(t testing.TB, at string, v, like any) {
	t.Helper()
	switch like := like.(type) {
	case object:
		o, ok := v.(object)
		if !ok {
			t.Errorf("%s is no object: %v", at, v)
			return
		}
		for name, l := range like {
			if _, ok := o[name]; !ok {
				t.Errorf("%s has no %s: %v", at, name, o)
				continue
			}
			conforms(t, at+"."+name, o[name], l)
		}
	case []any:
		list, ok := v.([]any)
		if !ok {
			t.Errorf("%s is no list: %v", at, v)
			return
		}
		for i := range list {
			if len(like) > 0 {
				conforms(t, fmt.Sprintf("%s[%d]", at, i), list[i], like[0])
			}
		}
	case float64:
		if _, ok := v.(float64); !ok {
			t.Errorf("%s is no number: %v", at, v)
		}
	case string:
		s, ok := v.(string)
		_, notTime := time.Parse(time.RFC3339Nano, s)
		u, notURL := url.Parse(s)
		switch {
		case !ok, like == "" && s == "", like == "time" && notTime != nil, like == "url" && (notURL != nil || !u.IsAbs() || u.Host == ""):
			t.Errorf("%s is no %s text: %v", at, like, v)
		case strings.HasPrefix(like, "^") && !regexp.MustCompile(like).MatchString(s):
			t.Errorf("%s is %q, not %s", at, s, like)
		}
	}
}

func TestSpansAndMetricsAreOTLP(t *testing.T) {
	rows := everything()
	for i := range 2*spansPerLine + 5 {
		rows = append(rows, ledger.NetEvent{Time: began.Add(time.Minute), Domain: fmt.Sprintf("h%d.test", i%7), Port: 443, Decision: "allowed", Method: "GET", Path: "/", Status: 200, Sent: 1, Received: 2, Type: "https"})
	}
	docs := jsonLines(t, exported(t, record(t, rows...), OTLP))
	spans, ids := 0, map[any]bool{}
	for _, d := range docs[:len(docs)-1] {
		conforms(t, "traces", d, object{"resourceSpans": []any{object{
			"resource": object{"attributes": []any{object{"key": "", "value": object{}}}},
			"scopeSpans": []any{object{"scope": object{"name": ""}, "spans": []any{object{
				"traceId": "^[0-9a-f]{32}$", "spanId": "^[0-9a-f]{16}$", "name": "", "kind": 0.0, "startTimeUnixNano": "^[0-9]{19}$", "endTimeUnixNano": "^[0-9]{19}$",
				"attributes": []any{object{"key": "", "value": object{}}},
			}}}},
		}}})
		for _, s := range dig(d, "resourceSpans", "scopeSpans", "spans") {
			spans++
			ids[s["spanId"]] = true
		}
	}
	if want := 4 + 1 + 1 + 1 + 1 + 2*spansPerLine + 5; spans != want || len(ids) != want || len(docs) < 4 {
		t.Errorf("%d spans with %d ids in %d lines, want %d", spans, len(ids), len(docs), want)
	}
	got := map[string]string{}
	for _, m := range dig(docs[len(docs)-1], "resourceMetrics", "scopeMetrics", "metrics") {
		conforms(t, "metric", m, object{"name": "", "unit": "", "sum": object{"isMonotonic": nil, "aggregationTemporality": 0.0, "dataPoints": []any{object{"timeUnixNano": "^[0-9]{19}$", "attributes": []any{}}}}})
		for _, p := range dig(m["sum"].(object), "dataPoints") { //nolint:forcetypeassert // conforms has looked
			value := fmt.Sprint(p["asInt"])
			if p["asInt"] == nil {
				value = fmt.Sprint(p["asDouble"])
			}
			got[m["name"].(string)] += value + " " //nolint:forcetypeassert // conforms has looked
		}
	}
	for name, want := range map[string]string{"gen_ai.client.tokens": "100 7 ", "gen_ai.client.cost": "0.25 ", "capsem.dns.lookups": "1 ", "capsem.network.io": "1054 527 "} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

// dig goes down lists of objects.
func dig(v object, names ...string) (out []object) {
	list, _ := v[names[0]].([]any)
	for _, e := range list {
		o, _ := e.(object)
		if len(names) == 1 {
			out = append(out, o)
		} else {
			out = append(out, dig(o, names[1:]...)...)
		}
	}
	return out
}

func TestCommandsCanBeWatched(t *testing.T) {
	text := exported(t, record(t, everything()...), Asciicast)
	head, rest, _ := strings.Cut(text, "\n")
	var h map[string]any
	if err := json.Unmarshal([]byte(head), &h); err != nil {
		t.Fatal(err)
	}
	conforms(t, "head", h, object{"version": 2.0, "width": 0.0, "height": 0.0, "timestamp": 0.0})
	last, said := 0.0, strings.Builder{}
	for line := range strings.Lines(rest) {
		var v []any
		if err := json.Unmarshal([]byte(line), &v); err != nil || len(v) != 3 || v[1] != "o" {
			t.Fatalf("%v: %s", err, line)
		}
		at, _ := v[0].(float64)
		if at < last {
			t.Errorf("%v after %v", at, last)
		}
		last = at
		fmt.Fprint(&said, v[2])
	}
	all := said.String()
	if !strings.Contains(all, "$ curl") || !strings.Contains(all, "out]0;evil\r\nmore\r\nbad\r\n") || !strings.Contains(all, "[exit 2]") || strings.Contains(all, "\x07") || last != 1 {
		t.Errorf("%q until %v", all, last)
	}
	if empty := exported(t, record(t), Asciicast); !strings.Contains(empty, `"version":2`) {
		t.Errorf("%q", empty)
	}
}

// fails is a writer that takes no more.
type fails struct{ left int }

func (f *fails) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("the disk is full")
	}
	return len(p), nil
}

func TestAReaderThatLeavesEndsTheExport(t *testing.T) {
	rows := everything()
	for range 2000 {
		rows = append(rows, ledger.FileEvent{Action: "modified", Path: strings.Repeat("x", 200)})
	}
	src := record(t, rows...)
	for _, f := range []string{JSONL, OCSF} {
		if err := Write(t.Context(), &fails{left: 100 << 10}, src, f); err == nil || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%s: %v", f, err)
		}
	}
}
