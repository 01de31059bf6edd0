//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/api"
)

// TestWhatAVMDoesStaysOnRecord looks at the record of a VM that is gone, and changes one byte of it.
func TestWhatAVMDoesStaysOnRecord(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.ok("exec", "vm", "echo recorded > /root/file; python3 -c 'import os; os.execv(\"/bin/true\", [\"true\", \"with an argument\"])'")
	in.until("the guest's report", func() bool {
		return strings.Contains(in.ok("history", "--kind", "audit", "vm"), "/usr/bin/true  true with an argument")
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
