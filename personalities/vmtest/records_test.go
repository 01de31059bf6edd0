//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"capsem/core/api"
	"capsem/core/paths"
)

// exports has the events of all VMs sent to a file, and to a collector, which has to get traces; it gives what is in the file.
func exports(t *testing.T, home paths.Home) (sent func() string) {
	t.Helper()
	var traces atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && r.URL.Path == "/v1/traces" && json.Valid(body) {
			traces.Add(1)
		}
	}))
	file := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(home.UserConfig(), fmt.Appendf(nil, "[export]\notlp = %q\nstream = %q\n", collector.URL, "file://"+file), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		collector.Close()
		if traces.Load() == 0 {
			t.Error("the collector got no traces")
		}
	})
	return func() string {
		text, err := os.ReadFile(file)
		if err != nil {
			return ""
		}
		return string(text)
	}
}

// TestWhatAVMDoesStaysOnRecord looks at the record of a VM that is gone, and changes one byte of it.
func TestWhatAVMDoesStaysOnRecord(t *testing.T) {
	home := newHomeWithImage(t)
	sent := exports(t, home)
	in := newInstall(t, home)
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.ok("exec", "vm", "echo recorded > /root/file; python3 -c 'import os; os.execv(\"/bin/true\", [\"true\", \"with an argument\"])'")
	in.until("the guest's report", func() bool {
		return strings.Contains(in.ok("history", "--kind", "audit", "vm"), "/usr/bin/true true with an argument")
	})
	if text := in.ok("history", "--kind", "file", "vm"); !strings.Contains(text, "created file") {
		t.Errorf("files: %s", text)
	}
	in.want(0, "COUNT\n1\n", "", "inspect", "vm", "SELECT count(*) AS COUNT FROM exec_events WHERE exit_code=0 AND command LIKE '%with an argument%'")
	in.want(1, "", "only SELECT", "inspect", "vm", "DELETE FROM exec_events")
	var sessions api.SessionsReply
	if err := json.Unmarshal([]byte(in.ok("history", "--json")), &sessions); err != nil || len(sessions.Sessions) != 1 {
		t.Fatalf("%+v, %v", sessions, err)
	}
	id := sessions.Sessions[0].ID
	in.ok("suspend", "vm")
	in.ok("resume", "vm")
	in.killService()
	in.ok("exec", "vm", "touch /root/second")
	in.ok("delete", "vm")
	in.until("the end on record", func() bool { return strings.Contains(in.ok("history"), "stopped") })
	for _, word := range []string{"with an argument", "touch /root/second", "suspended", "resumed"} {
		if text := in.ok("history", "--kind", "exec,lifecycle", id); !strings.Contains(text, word) {
			t.Errorf("no %s in\n%s", word, text)
		}
	}
	for _, word := range []string{"with an argument", "touch /root/second", "suspended", "resumed", `"event":"stopped"`} {
		in.until("what was sent of: "+word, func() bool { return strings.Contains(sent(), word) })
	}
	if n := strings.Count(sent(), `"session":"`+id+`"`); n < 10 {
		t.Errorf("%d events were sent", n)
	}
	in.want(0, "*", "", "verify", "--json", id)
	if text := in.ok("verify", id); !strings.Contains(text, "is as it was written") {
		t.Error(text)
	}
	path := filepath.Join(in.home.Record(id), "session.db")
	record, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(record, []byte("with an argument"))
	flip(t, path, int64(at))
	in.want(1, "*", "was changed", "verify", id)
}
