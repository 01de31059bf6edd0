package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExportsGoToANewFileOrTheOutput(t *testing.T) {
	f := newService(t)
	f.mux.HandleFunc("GET /export/dev", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("as " + r.URL.Query().Get("format") + "\n"))
	})
	if r := f.capsem(nil, "export", "--format", "otlp", "dev"); r.code != 0 || r.stdout != "as otlp\n" {
		t.Errorf("%+v", r)
	}
	file := filepath.Join(t.TempDir(), "out.har")
	if r := f.capsem(nil, "export", "dev", "--format", "har", "-o", file); r.code != 0 || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "as har\n" {
		t.Errorf("%q %v", text, err)
	}
	if r := f.capsem(nil, "export", "--format", "har", "-o", file, "dev"); r.code == 0 || !strings.Contains(r.stderr, "already") {
		t.Errorf("%+v", r)
	}
	if r := f.capsem(nil, "export", "dev"); r.code == 0 || !strings.Contains(r.stderr, "--format") {
		t.Errorf("%+v", r)
	}
}

func TestExportsAreSentToACollector(t *testing.T) {
	f := newService(t)
	f.mux.HandleFunc("GET /export/dev", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"follow":"` + r.URL.Query().Get("follow") + `"}` + "\n"))
	})
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.URL.Path+" "+string(body))
	}))
	defer srv.Close()
	if r := f.capsem(nil, "export", "--format", "otlp", "-f", "--to", srv.URL, "dev"); r.code != 0 || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	if len(got) != 1 || got[0] != `/v1/traces {"follow":"1"}` {
		t.Errorf("%q", got)
	}
	for _, line := range []string{"--format har --to " + srv.URL, "--format otlp --to nowhere", "--format otlp -o x --to " + srv.URL, "--format jsonl -f -o x"} {
		if r := f.capsem(nil, append([]string{"export", "dev"}, strings.Fields(line)...)...); r.code == 0 {
			t.Errorf("%s: %+v", line, r)
		}
	}
}
