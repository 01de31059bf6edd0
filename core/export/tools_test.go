package export

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/ledger"
)

// fileOf writes an export to a file.
func fileOf(t *testing.T, format string, rows ...ledger.Row) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "record."+format)
	if err := os.WriteFile(name, []byte(exported(t, record(t, rows...), format)), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// run runs a program of the system; .ci/deps installs those.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, errs.String())
	}
	return string(out)
}

// playwright is where .ci/npmdeps has put what drives a browser.
func playwright(t *testing.T) string {
	t.Helper()
	root := os.Getenv("CAPSEM_TEST_CACHE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "capsem-test")
	}
	return filepath.Join(root, "node-browser", "node_modules", "playwright-core")
}

// TestTheNetworkPanelOfChromiumImportsTheArchive has the browser's own importer read it, and compares what it lists with what was recorded.
func TestTheNetworkPanelOfChromiumImportsTheArchive(t *testing.T) {
	rows := append(everything(), ledger.NetEvent{Time: began, Domain: "odd.test", Port: 80, Decision: "allowed", Method: "PURGE", Path: "/a%20b/\u00fc", Query: "x=1&x=2", Status: 299, Type: "http", Received: 5000, Sent: 7})
	file := fileOf(t, HAR, rows...)
	var got []struct {
		URL, Method, Type, Protocol, Remote, Sent, Got string
		Status                                         int
		Size, Transferred                              int64
		Seconds, Began                                 float64
		RequestHeaders, ResponseHeaders                []harPair
	}
	text := run(t, "node", "testdata/import.mjs", playwright(t), "/usr/bin/chromium", file)
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var want []ledger.NetEvent
	for _, r := range rows {
		if e, ok := r.(ledger.NetEvent); ok && e.Method != "" {
			want = append(want, e)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d requests of %d: %s", len(got), len(want), text)
	}
	found := 0
	for _, w := range want {
		for _, g := range got {
			if g.Method != w.Method || g.Status != w.Status || !strings.Contains(g.URL, w.Path) {
				continue
			}
			found++
			if g.Size != w.Received || g.Transferred != w.Received || g.Seconds != w.Duration.Seconds() || g.Began != float64(w.Time.UnixMilli())/1000 ||
				!strings.Contains(g.URL, "://") || g.Sent != w.RequestBody || g.Got != w.ResponseBody && w.ResponseBody != "" || len(g.RequestHeaders) != len(w.RequestHeaders) {
				t.Errorf("%+v\nof %+v", g, w)
			}
		}
	}
	if found != len(want) {
		t.Errorf("%d of %d: %s", found, len(want), text)
	}
}

func TestAsciinemaPlaysTheCommands(t *testing.T) {
	file := fileOf(t, Asciicast, everything()...)
	out := run(t, "script", "-qec", "asciinema cat "+file, "/dev/null") // it wants a terminal
	for _, want := range []string{"$ curl -H", "[redacted]", "out]0;evil", "more", "[exit 2]"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	if strings.ContainsAny(out, "\a") {
		t.Errorf("what the guest told its terminal is played: %q", out)
	}
	if out := run(t, "script", "-qec", "asciinema cat "+fileOf(t, Asciicast), "/dev/null"); out != "" {
		t.Errorf("of nothing: %q", out)
	}
}

func TestTheLinesAreReadByJQ(t *testing.T) {
	for _, format := range []string{JSONL, OCSF, OTLP} {
		if out := run(t, "jq", "-s", "-e", "all(type == \"object\") and length > 1", fileOf(t, format, everything()...)); strings.TrimSpace(out) != "true" {
			t.Errorf("%s: %s", format, out)
		}
	}
	if out := run(t, "jq", "-r", `select(.kind == "net" and .fields.decision == "denied") | .fields.domain`, fileOf(t, JSONL, everything()...)); out != "bad.test\nssh.test\n" {
		t.Errorf("%q", out)
	}
}
