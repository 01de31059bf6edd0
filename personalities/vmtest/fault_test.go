//go:build vm

package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/assets/assetstest"
	"capsem/core/paths"
)

func newHomeWithImage(t *testing.T) paths.Home {
	t.Helper()
	return assetstest.Home(t)
}

func TestAGuestThatIsNotReadyInTimeIsSaidWithItsConsole(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	if err := os.WriteFile(in.home.UserConfig(), []byte("[vm]\nready_timeout = \"1s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.want(125, "", "not ready within 1s", "run", "true")
	r := in.capsem("", "create", "-n", "slow")
	if r.code == 0 || !strings.Contains(r.stderr, "not ready within 1s") {
		t.Errorf("got %+v", r)
	}
	if text := in.ok("list"); !strings.Contains(text, "slow") || !strings.Contains(text, "Defunct") {
		t.Errorf("list prints %q", text)
	}
	if text := in.ok("logs", "slow"); !strings.Contains(text, "worker") {
		t.Errorf("logs prints %q", text)
	}
	if err := os.Remove(in.home.UserConfig()); err != nil {
		t.Fatal(err)
	}
	in.ok("resume", "slow")
	in.want(0, "up\n", "", "exec", "slow", "echo up")
	mistake(t, in)
}

// mistake makes a mistake in the settings, which must be named wherever they are read.
func mistake(t *testing.T, in *install) {
	t.Helper()
	if err := os.WriteFile(in.home.UserConfig(), []byte("[vm.resources]\ncpus = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.want(1, "", "line 2", "create")
	if err := os.Remove(in.home.UserConfig()); err != nil {
		t.Fatal(err)
	}
}

func TestALongHomeWorksAndDoctorPasses(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "ct")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	home := paths.Home(filepath.Join(base, strings.Repeat("long/", 25)))
	if err := os.MkdirAll(home.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := assetstest.Fill(t.Context(), home, assetstest.Minimal); err != nil {
		t.Fatal(err)
	}
	in := newInstall(t, home)
	r := in.capsem("", "doctor", "--json")
	var report struct {
		OK     bool `json:"ok"`
		Checks []struct {
			Name, Where, Detail, Hint string
			OK                        bool
		} `json:"checks"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	guest := 0
	for _, c := range report.Checks {
		if !c.OK {
			t.Errorf("doctor: %+v", c)
		}
		if c.Where == "guest" {
			guest++
		}
	}
	if r.code != 0 || !report.OK || guest < 15 {
		t.Errorf("code %d, %d guest checks: %s", r.code, guest, r.stderr)
	}
}
