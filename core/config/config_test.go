package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
)

// write makes a settings file; an empty text makes none.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if text == "" {
		return path
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCorpOverridesUserOverridesDefaults(t *testing.T) {
	user := write(t, "user.toml", "[vm]\naccelerator = \"tcg\"\nready_timeout = \"3s\"\n[vm.resources]\ncpu_count = 3\nram_mb = 512\ndisk_gb = 4\n")
	corp := write(t, "corp.toml", "vm.resources = {ram_mb = 1024, max_concurrent_vms = 2}\n")
	got, err := load(user, corp)
	if err != nil {
		t.Fatal(err)
	}
	kept := Retention{Days: 30, Sessions: 100, DiskGB: 100, IndexDays: 365}
	want := Settings{
		VM:      VM{CPUs: 3, RAMMB: 1024, DiskMB: 4096, MaxVMs: 2, Accelerator: "tcg", ReadyTimeout: 3 * time.Second, WarmStart: true, RecordMB: 1024, Retention: kept, Snapshots: Snapshots{AutoMax: 10, ManualMax: 12, Interval: 5 * time.Minute}},
		Network: Network{DNS: []string{}, CAFiles: []string{}, ClientCerts: []string{}, Bypass: []string{}, AskTimeout: 2 * time.Minute},
		Detect:  Detect{Placeholders: "deny", Secrets: "report", OwnSecrets: "deny", Injection: "report"},
		Export:  Export{Format: "jsonl"},
		Log:     Log{Level: "info"},
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestWithoutFilesTheDefaultsHold(t *testing.T) {
	got, err := load(write(t, "user.toml", ""), write(t, "corp.toml", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got.VM.MaxVMs != 10 || got.VM.CPUs == 0 || got.VM.RAMMB == 0 || got.VM.DiskMB == 0 || got.VM.ReadyTimeout == 0 {
		t.Errorf("incomplete defaults: %+v", *got)
	}
}

func TestMistakesNameTheirFileAndLineAndWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":         {"[vm]\n\nacelerator = \"tcg\"\n", "line 3: there is no setting \"vm.acelerator\"; the nearest is vm.accelerator"},
		"unknown table":       {"[vm.resource]\ncpu_count = 1\n", "there is no setting \"vm.resource"},
		"wrong type":          {"[vm.resources]\ncpu_count = \"four\"\n", "line 2: "},
		"out of range":        {"[vm.resources]\n# a comment\ncpu_count = 9\n", "line 3: vm.resources.cpu_count is 9; it must be 1 to 8"},
		"out of range inline": {"\nvm.resources = {ram_mb = 1}\n", "line 2: vm.resources.ram_mb is 1; it must be 256 to 16384"},
		"unknown word":        {"vm.accelerator = \"hvf\"", "line 1: vm.accelerator is \"hvf\"; it must be one of"},
		"bad time":            {"[vm]\nready_timeout = \"soon\"", "line 2: vm.ready_timeout is \"soon\""},
		"not TOML":            {"[vm\n", "line 1: "},
		"twice":               {"[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "level"},
		"too long":            {"#" + strings.Repeat("x", maxFile), "longer than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "user.toml", tt.text)
			_, err := load(path, write(t, "corp.toml", ""))
			line := fault.Line(err)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(line, tt.want) || !strings.Contains(line, path) {
				t.Errorf("got %q, want it to name %s and say %q", line, path, tt.want)
			}
		})
	}
}

func TestEverySettingIsDescribedWithWhatHolds(t *testing.T) {
	got, err := Describe()
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]Setting{}
	for _, s := range got {
		described[s.Key] = s
		if s.Type == "" || s.Default == "" || s.Meaning == "" || !strings.HasSuffix(s.Meaning, ".") {
			t.Errorf("incomplete: %+v", s)
		}
	}
	for _, key := range keys() {
		if _, ok := described[key]; !ok {
			t.Errorf("%s is not described", key)
		}
	}
	if len(got) != len(keys()) {
		t.Errorf("%d settings are described, there are %d", len(got), len(keys()))
	}
	for key, want := range map[string]Setting{
		"vm.resources.ram_mb": {"", "number, 256 to 16384", "2048", "Memory of a VM that is made without --ram, in MB."},
		"vm.ready_timeout":    {"", "time, 1s to 1h", `"120s"`, "How long a guest may take until it answers."},
		"log.level":           {"", "one of debug, info, warn, error", `"info"`, described["log.level"].Meaning},
		"vm.warm_start":       {"", "true or false", "true", described["vm.warm_start"].Meaning},
	} {
		want.Key = key
		if described[key] != want {
			t.Errorf("%s: %+v, want %+v", key, described[key], want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(defaults)
	f.Add([]byte("[vm.resources]\ncpu_count = 9\n"))
	f.Add([]byte("vm.x.y = {a = 1}"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		var s Settings
		_ = s.apply("user.toml", text) // must not panic
	})
}
