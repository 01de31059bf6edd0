package localapi_test

import (
	"bufio"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"capsem/core/ledger"
)

func TestARecordIsExportedInAFormatOfOtherTools(t *testing.T) {
	s := serve(t)
	id := s.vm()
	var session string
	await(t, "the session", func() bool {
		all, err := s.Sessions(t.Context())
		if err == nil && len(all.Sessions) == 1 {
			session = all.Sessions[0].ID
		}
		return session != ""
	})
	key, err := ledger.LoadOrCreateKey(s.home.RecordKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.home.Record(session), 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := ledger.Open(t.Context(), s.home.RecordDB(session), ledger.Options{Session: session, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.Record(ledger.NetEvent{Time: time.Now(), Domain: "a.test", Port: 443, Method: "GET", Path: "/x", Decision: "allowed", Type: "https"})
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, err := s.Export(t.Context(), id, "har", false)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(text), `"url":"https://a.test/x"`) || in.Close() != nil {
		t.Errorf("%v %s", err, text)
	}
	if status, text, h := s.raw("GET", "/export/"+id+"?format=ocsf", "", nil); status != http.StatusOK || h.Get("Content-Type") != "application/x-ndjson" || !strings.Contains(text, session) {
		t.Errorf("%d %v %s", status, h, text)
	}
	if _, err := s.Export(t.Context(), id, "pcap", false); err == nil || !strings.Contains(err.Error(), "no format") {
		t.Errorf("an unknown format: %v", err)
	}
	if _, err := s.Export(t.Context(), "nobody", "har", false); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("no session: %v", err)
	}
	if _, err := s.Export(t.Context(), id, "har", true); err == nil || !strings.Contains(err.Error(), "cannot be followed") {
		t.Errorf("an archive is followed: %v", err)
	}
	following(t, s, id, session, key)
	// What breaks on the way is not taken for whole.
	if err := os.Truncate(s.home.RecordDB(session), 5000); err != nil {
		t.Fatal(err)
	}
	if in, err := s.Export(t.Context(), id, "har", false); err == nil {
		if text, err := io.ReadAll(in); err == nil {
			t.Errorf("a part for the whole: %s", text)
		}
	}
}

// following reads what is added while the VM runs.
func following(t *testing.T, s *served, id, session string, key ed25519.PrivateKey) {
	t.Helper()
	in, err := s.Export(t.Context(), id, "jsonl", true)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	lines := bufio.NewReader(in)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "a.test") {
		t.Fatalf("%q %v", line, err)
	}
	w, err := ledger.Open(t.Context(), s.home.RecordDB(session), ledger.Options{Session: session, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.Record(ledger.NetEvent{Time: time.Now().Add(-time.Hour), Domain: "late.test", Port: 443, Method: "GET", Decision: "allowed"}) // it took long
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line := ""; !strings.Contains(line, "late.test"); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(lines); err != nil {
		t.Errorf("the end of the VM: %v", err)
	}
}
