//go:build linux

package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/guest/boot"
)

// system makes a guest of files; each key is a path below it.
func system(t *testing.T, files map[string]string) *System {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &System{Proc: dir + "/proc", Sys: dir + "/sys", Getenv: func(key string) string { return files["env/"+key] }}
}

func TestChecksTellAGoodGuestFromABadOne(t *testing.T) {
	t.Parallel()
	const head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
	settings := map[string]string{}
	for _, s := range boot.Sysctls() {
		settings["proc/sys/"+s.Name] = s.Value + "\n"
	}
	env := map[string]string{
		"env/HOME": "/root", "env/IS_SANDBOX": "1", "env/LANG": "C.UTF-8", "env/PATH": "/bin", "env/TERM": "dumb", "env/CAPSEM_VM_ID": "x",
	}
	for _, c := range []struct {
		name  string
		check func(context.Context, *System) (string, error)
		files map[string]string
		ok    bool
	}{
		{"two devices", networkCards, map[string]string{"sys/class/net/lo": "", "sys/class/net/dummy0": ""}, true},
		{"a network card", networkCards, map[string]string{"sys/class/net/lo": "", "sys/class/net/dummy0": "", "sys/class/net/eth0": ""}, false},
		{"no dummy", networkCards, map[string]string{"sys/class/net/lo": ""}, false},
		{"no devices", networkCards, nil, false},
		{"routes", routes, map[string]string{"proc/net/route": head + "dummy0\t0\t0\t1\t0\t0\t0\t0\n"}, true},
		{"a way out", routes, map[string]string{"proc/net/route": head + "dummy0\t0\t0\t1\t0\t0\t0\t0\neth0\t0\t0\t1\t0\t0\t0\t0\n"}, false},
		{"no routes", routes, map[string]string{"proc/net/route": head}, false},
		{"locked", modulesLocked, map[string]string{"proc/sys/kernel/modules_disabled": "1\n"}, true},
		{"not locked", modulesLocked, map[string]string{"proc/sys/kernel/modules_disabled": "0\n"}, false},
		{"no modules", modulesLocked, nil, true},
		{"settings", kernelSettings, settings, true},
		{"other settings", kernelSettings, map[string]string{"proc/sys/kernel/sysrq": "1\n"}, false},
		{"environment", environment, env, true},
		{"no environment", environment, nil, false},
		{"clock", clock, nil, true},
	} {
		detail, err := c.check(t.Context(), system(t, c.files))
		if (err == nil) != c.ok || err == nil && detail == "" {
			t.Errorf("%s: %q, %v", c.name, detail, err)
		}
	}
}

func TestEachResultIsALineAndAFailureHasAHint(t *testing.T) {
	t.Parallel()
	checks := []Check{
		{"good", "unused", func(context.Context, *System) (string, error) { return "fine <&>", nil }},
		{"bad", "do this", func(context.Context, *System) (string, error) { return "ignored", errors.New("it\nbroke") }},
	}
	var out bytes.Buffer
	ok, err := Run(t.Context(), &System{}, checks, JSON(&out))
	if err != nil || ok {
		t.Errorf("%v, %v", ok, err)
	}
	var got []Result
	for line := range strings.Lines(out.String()) {
		var r Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	want := []Result{{"good", true, "fine <&>", ""}, {"bad", false, "it\nbroke", "do this"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v", got)
	}
	out.Reset()
	if _, err := Run(t.Context(), &System{}, checks, Text(&out)); err != nil || !strings.Contains(out.String(), "PASS  good") ||
		!strings.Contains(out.String(), "FAIL  bad") || !strings.Contains(out.String(), "(do this)") {
		t.Errorf("%v, %s", err, out.String())
	}
}

func TestEveryCheckHasAnOwnNameAndAHint(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Checks() {
		if seen[c.Name] || c.Name == "" || c.Hint == "" || strings.ContainsAny(c.Name, " \n") {
			t.Errorf("%+v", c.Name)
		}
		seen[c.Name] = true
	}
}

func TestOnlyARefusalIsTheProxysAnswer(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"HTTP/1.1 403 Forbidden\r\n": 403, "HTTP/1.0 502\r\n": 502, "HTTP/1.1 200 OK\r\n": 0, "HTTP/1.1 302 Found\r\n": 0, "SSH-2.0-x\r\n": 0, "": 0,
		"HTTP/1.1 4030 x\r\n": 0, "HTTP/1.1 -403 x\r\n": 0, "HTTP/2 403\r\n": 0,
	} {
		if got, err := statusOf(line); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", line, got, err)
		}
	}
}
