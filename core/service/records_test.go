package service_test

import (
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/ledger"
	"capsem/core/paths"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// sessionOf waits until the session of a VM is known, in a state.
func sessionOf(t *testing.T, s *service.Service, vm, status string) api.Session {
	t.Helper()
	var found api.Session
	await(t, "session of "+vm+" "+status, func() bool {
		reply, err := s.Sessions(t.Context(), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range reply.Sessions {
			if one.Name == vm && one.Status == status {
				found = one
				return true
			}
		}
		return false
	})
	return found
}

// writeRecord writes a record as the worker of the session does.
func writeRecord(t *testing.T, home paths.Home, session string, commands ...string) {
	t.Helper()
	key, err := ledger.LoadOrCreateKey(home.RecordKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(home.Record(session), 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := ledger.Open(t.Context(), home.RecordDB(session), ledger.Options{Session: session, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		w.Record(ledger.ExecEvent{ExecID: "j1", Command: c, Source: "api"})
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestARecordOutlivesItsVMAndShowsEveryChange(t *testing.T) {
	home := servicetest.Home(t)
	s, _ := servicetest.Start(t, servicetest.Options(t, home))
	create(t, s, api.ProvisionRequest{Name: "vm"})
	one := sessionOf(t, s, "vm", ledger.Running)
	writeRecord(t, home, one.ID, "make", "make test")
	if err := s.Delete(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	await(t, "the sums", func() bool {
		ended := sessionOf(t, s, "vm", ledger.Stopped)
		return ended.ID == one.ID && ended.Totals.Execs == 2 && ended.HeadSeq > 0
	})
	for _, id := range []string{"vm", one.ID} {
		page, err := s.History(t.Context(), id, ledger.Filter{Search: "test"})
		if err != nil || len(page.Entries) != 1 || page.Entries[0].Fields["command"] != "make test" {
			t.Errorf("%s: %+v, %v", id, page, err)
		}
	}
	if report, err := s.Verify(t.Context(), "vm"); err != nil || !report.OK() || report.Rows < 2 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := s.Inspect(t.Context(), "vm", "DELETE FROM exec_events"); err == nil {
		t.Error("a statement that writes was done")
	}
	rows, err := s.Inspect(t.Context(), "_main", "SELECT name, exec_count FROM sessions")
	if err != nil || len(rows.Rows) != 1 || rows.Rows[0][0] != "vm" || rows.Rows[0][1] != int64(2) {
		t.Errorf("%+v, %v", rows, err)
	}
	db, err := sql.Open("sqlite3", home.RecordDB(one.ID))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE exec_events SET command='make clean' WHERE id=1"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Verify(t.Context(), one.ID); err != nil || report.OK() {
		t.Errorf("a changed row is not found: %+v, %v", report, err)
	}
	if _, err := s.History(t.Context(), "nobody", ledger.Filter{}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("no session: %v", err)
	}
}

func TestTheNextServiceMakesUpForWhatADeadOneDidNotNote(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := servicetest.Start(t, servicetest.Options(t, home))
	create(t, s, api.ProvisionRequest{Name: "dies"})
	create(t, s, api.ProvisionRequest{Name: "lives"})
	sessionOf(t, s, "dies", ledger.Running)
	lives := sessionOf(t, s, "lives", ledger.Running)
	pid := info(t, s, "dies").PID
	stop()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.RecordIndex()+".x", nil, 0o600); err != nil { // the sweep leaves what it does not know
		t.Fatal(err)
	}
	s, stop = servicetest.Start(t, servicetest.Options(t, home))
	sessionOf(t, s, "dies", ledger.Crashed)
	if again := sessionOf(t, s, "lives", ledger.Running); again.ID != lives.ID {
		t.Errorf("%+v, then %+v", lives, again)
	}
	stop()
	if err := os.WriteFile(home.RecordIndex(), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = servicetest.Start(t, servicetest.Options(t, home))
	sessionOf(t, s, "lives", ledger.Running)
	if aside, _ := filepath.Glob(home.RecordIndex() + ".damaged-*"); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
}

func TestOnlyRecordsOfVMsThatAreGoneAreSwept(t *testing.T) {
	home := servicetest.Home(t)
	opts := servicetest.Options(t, home)
	settings := opts.Settings
	opts.Settings = func() (*config.Settings, error) {
		set, err := settings()
		set.VM.Retention = config.Retention{Days: 30, Sessions: 1, DiskGB: 1, IndexDays: 30}
		return set, err
	}
	s, stop := servicetest.Start(t, opts)
	ids := map[string]string{}
	for _, name := range []string{"old", "newer", "newest", "stopped"} {
		create(t, s, api.ProvisionRequest{Name: name})
		ids[name] = sessionOf(t, s, name, ledger.Running).ID
		writeRecord(t, home, ids[name], "true")
		if _, err := s.Stop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		sessionOf(t, s, name, ledger.Stopped)
		if name != "stopped" {
			if err := s.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	s, _ = servicetest.Start(t, opts)
	sessionOf(t, s, "old", ledger.Terminated)
	sessionOf(t, s, "newer", ledger.Terminated)
	for name, want := range map[string]bool{"old": false, "newer": false, "newest": true, "stopped": true} {
		if _, err := s.History(t.Context(), ids[name], ledger.Filter{}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
