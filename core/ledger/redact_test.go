package ledger

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHeadersAreHashedButForNine(t *testing.T) {
	c := cells{headerKey: headerKey(testKey(t))}
	c.headers(http.Header{
		"User-Agent": {"curl/8"}, "Content-Type": {"text/plain\r\nX-Forged: 1"}, "X-Request-Id": {"abc", "abc", "def"}, "Authorization": {"Bearer abc"},
		"Cookie": {"a=b"}, "X-My-Token": {"t"}, "x-odd\r\nname": {"v"},
	})
	lines := strings.Split(c.values[0].(string), "\r\n")
	want := []string{"authorization: [redacted]", "content-type: text/plain  X-Forged: 1", "cookie: [redacted]", "user-agent: curl/8", "x-my-token: [redacted]"}
	hashes := []string{}
	for _, line := range lines {
		if name, value, _ := strings.Cut(line, ": "); name == "x-request-id" {
			hashes = append(hashes, value)
		}
	}
	for _, w := range want {
		if !strings.Contains("\r\n"+c.values[0].(string)+"\r\n", "\r\n"+w+"\r\n") {
			t.Errorf("no line %q in %q", w, lines)
		}
	}
	if len(hashes) != 3 || hashes[0] != hashes[1] || hashes[1] == hashes[2] || len(hashes[0]) != len("hash:")+12 || !strings.HasPrefix(hashes[0], "hash:") {
		t.Error(hashes)
	}
	other := cells{headerKey: headerKey(testKey(t))}
	other.headers(http.Header{"X-Request-Id": {"abc"}})
	if strings.Contains(other.values[0].(string), hashes[0]) {
		t.Error("another install makes the same hash")
	}
}

func TestHeadersAreBounded(t *testing.T) {
	var c cells
	h := http.Header{}
	for i := range 5000 {
		h.Add("X-"+strings.Repeat("n", i%300), strings.Repeat("v", 10_000))
		h.Add("Accept", strings.Repeat("v", 10_000))
	}
	c.headers(h)
	if s := c.values[0].(string); len(s) > MaxLong || !strings.HasSuffix(s, ellipsis) {
		t.Fatal(len(s))
	}
}

func TestCredentialsAreRedacted(t *testing.T) {
	const key = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
	tests := map[string]struct{ got, want string }{
		"query":            {RedactQuery("a=1&access_token=x&key=y&Key=z&keyword=k&X-Amz-Signature=s"), "a=1&access_token=[redacted]&key=[redacted]&Key=[redacted]&keyword=k&X-Amz-Signature=[redacted]"},
		"query, shape":     {RedactQuery("q=sk-" + key), "q=[redacted]"},
		"query, none":      {RedactQuery(""), ""},
		"anthropic":        {RedactText("export K=sk-ant-api03-" + key + "; run"), "export K=sk-ant-api03-" + key + "; run"},
		"github":           {RedactText("git clone https://x:ghp_" + key + "@github.com/a"), "git clone https://x:[redacted]@github.com/a"},
		"bearer":           {RedactText(`curl -H "Authorization: Bearer ` + key + `" x`), `curl -H "Authorization: Bearer [redacted]" x`},
		"two":              {RedactText("AKIA" + key + " and AIza" + key), "[redacted] and [redacted]"},
		"short is no key":  {RedactText("sk-learn and hf_x"), "sk-learn and hf_x"},
		"middle of a word": {RedactText("task-" + key), "task-" + key},
		"url":              {redactURL("https://user:pw@h/p?token=x&a=b"), "https://[redacted]@h/p?token=[redacted]&a=b"},
		"url, plain":       {redactURL("https://h/p"), "https://h/p"},
		"no url":           {redactURL("::"), "::"},
	}
	// After "=", a key begins a word too.
	tests["anthropic"] = struct{ got, want string }{tests["anthropic"].got, "export K=[redacted]; run"}
	for name, test := range tests {
		if test.got != test.want {
			t.Errorf("%s: %q, not %q", name, test.got, test.want)
		}
	}
}

// Nothing of a credential may be in the file, in any column.
func TestNoCredentialReachesTheDisk(t *testing.T) {
	const secret = "sk-ant-api03-SECRETSECRETSECRETSECRET"
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, testKey(t)))
	p := Process{CommandLine: "curl -H x-api-key:" + secret}
	w.Record(NetEvent{
		Path: "/" + secret, Query: "key=" + secret, RequestHeaders: http.Header{"X-Api-Key": {secret}, "X-Other": {secret}, "User-Agent": {secret}},
		ResponseHeaders: http.Header{"Set-Cookie": {secret}}, RequestBody: `{"k":"` + secret + `"}`, Process: p, Error: secret,
	})
	w.Record(ExecEvent{Command: "export KEY=" + secret, Stdout: secret, Stderr: secret})
	w.Record(AuditEvent{Argv: "env KEY=" + secret})
	w.Record(Approval{URL: "https://x/?k=" + secret, Process: p})
	w.Record(MCPCall{Request: secret, Response: secret, Error: secret})
	w.Record(ModelCall{Path: secret, RequestBody: secret, Text: secret, SystemPrompt: secret, Calls: []ToolCall{{Arguments: secret}}, Results: []ToolResponse{{Content: secret}}})
	w.Record(Lifecycle{Detail: secret})
	closeWriter(t, w)
	data, err := os.ReadFile(path)
	check(t, err)
	if i := bytes.Index(data, []byte("SECRETSECRET")); i >= 0 {
		t.Fatalf("%q", data[max(0, i-100):i+20])
	}
}

func TestLogLinesCarryNoContent(t *testing.T) {
	var b bytes.Buffer
	l := Log{slog.New(slog.NewTextHandler(&b, nil))}
	for _, row := range append(oneOfEach(1), Event{Kind: "boot", VM: "vm1", Attrs: []slog.Attr{slog.Int("ms", 5)}}) {
		l.Record(row)
	}
	out := b.String()
	for _, want := range []string{"event net", "domain=example.com", "event exec", "event boot", "vm=vm1", "ms=5"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	for _, never := range []string{"make test", "hello", "be good", "ls -l"} {
		if strings.Contains(out, never) {
			t.Errorf("%q is logged", never)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("sk-ant-"+strings.Repeat("a", 40), 10)
	f.Add("\xff\x00é", 3)
	f.Add("a=b&key=c;token=d?x://y@z", 4096)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = min(max(limit, 0), MaxLong)
		if got := Clean(s, limit); len(got) > max(limit, 0) || !utf8.ValidString(got) || strings.Contains(got, "\x00") {
			t.Fatalf("Clean(%q, %d) = %q", s, limit, got)
		}
		for _, got := range []string{RedactText(s), RedactQuery(s), redactURL(s)} {
			if len(got) > 16*len(s)+64 {
				t.Fatalf("%q grew to %q", s, got)
			}
		}
	})
}
