//go:build linux

package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/proto"
)

// kernel notes what it is told.
type kernel struct {
	now      time.Time
	seeds    []string
	bits     int
	hostname string
	bootIDs  int
	fail     error
}

func (k *kernel) Now() time.Time             { return k.now }
func (k *kernel) SetClock(t time.Time) error { k.now = t; return nil }
func (k *kernel) SetHostname(n string) error { k.hostname = n; return nil }
func (k *kernel) NewBootID() error           { k.bootIDs++; return nil }
func (k *kernel) Credit(seed []byte, bits int) error {
	k.seeds, k.bits = append(k.seeds, string(seed)), bits
	return k.fail
}

func setter(t *testing.T) (*Setter, *kernel) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"/etc", "/usr/share/zoneinfo/Europe"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"/etc/hosts": "127.0.0.1 localhost\n127.0.1.1\told\n10.1.1.1 other", "/usr/share/zoneinfo/Europe/Berlin": "TZif", "/usr/share/zoneinfo/UTC": "TZif",
	} {
		if err := os.WriteFile(root+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := &kernel{}
	return &Setter{Kernel: k, Root: root}, k
}

func config() proto.BootConfig {
	return proto.BootConfig{
		ID: "vm1", Hostname: "box", EpochNS: 1_800_000_000_000_000_000, Timezone: "Europe/Berlin",
		MachineID: strings.Repeat("0A", 16), Entropy: make([]byte, 32),
	}
}

func read(t *testing.T, s *Setter, name string) string {
	t.Helper()
	b, err := os.ReadFile(s.Root + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAGuestBecomesItsVM(t *testing.T) {
	t.Parallel()
	s, k := setter(t)
	for range 2 { // a second time, as after the host restarts, changes nothing
		failed, err := s.Apply(config())
		if err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	}
	if k.hostname != "box" || k.now.UnixNano() != config().EpochNS || k.bits != 256 {
		t.Errorf("the kernel was told %+v", k)
	}
	if got, want := read(t, s, "/etc/hosts"), "127.0.0.1 localhost\n10.1.1.1 other\n127.0.1.1\tbox\n"; got != want {
		t.Errorf("hosts %q, want %q", got, want)
	}
	if got := read(t, s, "/etc/machine-id"); got != strings.Repeat("0a", 16)+"\n" {
		t.Errorf("machine id %q", got)
	}
	if got, err := os.Readlink(s.Root + "/etc/localtime"); err != nil || got != "/usr/share/zoneinfo/Europe/Berlin" {
		t.Errorf("local time is %q, %v", got, err)
	}
}

func TestClonesOfOneTemplateAreSeededApart(t *testing.T) {
	t.Parallel()
	s, k := setter(t)
	for i := range 3 { // the same entropy for all, as a careless host would send
		cfg := config()
		cfg.ID, cfg.MachineID = fmt.Sprint("vm", i), fmt.Sprintf("%032x", i)
		if _, err := s.Apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	if k.seeds[0] == k.seeds[1] || k.seeds[1] == k.seeds[2] {
		t.Error("two VMs have the same seed")
	}
	k.fail = errors.New("no random device")
	if _, err := s.Apply(config()); err == nil {
		t.Error("a guest without fresh entropy goes on")
	}
}

func TestOnlyAMachineThatWasAnotherGetsANewBootID(t *testing.T) {
	t.Parallel()
	s, k := setter(t)
	for i, c := range []struct {
		machine string
		want    int
	}{{strings.Repeat("0a", 16), 0}, {strings.Repeat("0A", 16), 0}, {strings.Repeat("0b", 16), 1}, {strings.Repeat("0b", 16), 1}} {
		cfg := config()
		cfg.MachineID = c.machine
		if failed, err := s.Apply(cfg); err != nil || len(failed) > 0 || k.bootIDs != c.want {
			t.Errorf("%d: %d new boot ids, %v, %v", i, k.bootIDs, failed, err)
		}
	}
}

func TestAnUnknownTimeZoneIsSaidAndNotFatal(t *testing.T) {
	t.Parallel()
	s, _ := setter(t)
	cfg := config()
	cfg.Timezone = "Mars/Olympus"
	failed, err := s.Apply(cfg)
	if err != nil || len(failed) != 1 || !strings.Contains(failed[0], "Mars/Olympus") {
		t.Errorf("%q, %v", failed, err)
	}
}

func TestTheClockIsSetAgainOnlyWhenItIsOff(t *testing.T) {
	t.Parallel()
	base := time.Unix(1_800_000_000, 0)
	for off, set := range map[time.Duration]bool{0: false, 900 * time.Millisecond: false, -time.Second: false, 2 * time.Second: true, -time.Hour: true} {
		s, k := setter(t)
		k.now = base.Add(off)
		if err := s.Drift(base.UnixNano()); err != nil {
			t.Fatal(err)
		}
		if got := k.now.Equal(base); got != (set || off == 0) {
			t.Errorf("off by %v: clock at %v", off, k.now)
		}
	}
}

func TestFilesOfTheHost(t *testing.T) {
	t.Parallel()
	s, _ := setter(t)
	if err := s.Place(proto.FileWrite{Path: "/root/.config/a", Mode: 0o600, Data: []byte("text")}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.Root, "root/.config/a")
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 || read(t, s, "/root/.config/a") != "text" {
		t.Errorf("%v, %v", info, err)
	}
	if err := s.Place(proto.FileWrite{Path: "/big", Mode: 0o600, Data: make([]byte, proto.MaxBootFileBytes)}); err == nil {
		t.Error("more bytes than allowed are taken")
	}
	s, _ = setter(t)
	for i := range proto.MaxBootFiles + 1 {
		err := s.Place(proto.FileWrite{Path: fmt.Sprint("/f", i), Mode: 0o600})
		if over := i >= proto.MaxBootFiles; (err != nil) != over {
			t.Errorf("file %d: %v", i, err)
		}
	}
}
