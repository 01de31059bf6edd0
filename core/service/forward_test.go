package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/ledger"
	"capsem/core/service/servicetest"
)

// TestRecordsAreSentWithoutAnybodyAsking: the setting is all it takes, and the next service sends what was left.
func TestRecordsAreSentWithoutAnybodyAsking(t *testing.T) {
	home := servicetest.Home(t)
	events := filepath.Join(t.TempDir(), "events")
	opts := servicetest.Options(t, home)
	settings := opts.Settings
	opts.Settings = func() (*config.Settings, error) {
		set, err := settings()
		if err == nil {
			set.Export.Stream = "file://" + events
		}
		return set, err
	}
	sent := func(what string) func() bool {
		return func() bool {
			text, err := os.ReadFile(events)
			return err == nil && strings.Contains(string(text), what)
		}
	}
	s, stop := servicetest.Start(t, opts)
	create(t, s, api.ProvisionRequest{Name: "vm"})
	one := sessionOf(t, s, "vm", ledger.Running)
	writeRecord(t, home, one.ID, "make first")
	await(t, "the first command", sent("make first"))
	stop()
	writeRecord(t, home, one.ID, "make second")
	s, _ = servicetest.Start(t, opts)
	await(t, "the second command", sent("make second"))
	if err := s.Delete(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	await(t, "the end", func() bool {
		text, err := os.ReadFile(home.RecordExport(one.ID, "stream"))
		return err == nil && strings.Contains(string(text), `"done":true`)
	})
	text, err := os.ReadFile(events)
	if err != nil || strings.Count(string(text), "make first") != 1 || strings.Count(string(text), "make second") != 1 {
		t.Errorf("%v\n%s", err, text)
	}
}
