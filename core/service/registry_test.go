package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/proto"
)

func TestTheRegistryIsReadStrictly(t *testing.T) {
	const dev = `{"name":"dev","ram_mb":512,"cpus":2,"disk_mb":2048,"base_version":"1","created_at":"2026-01-02T03:04:05Z"}`
	for text, want := range map[string]string{
		`{"vms":{}}`:                       "",
		`{"vms":{"dev":` + dev + `}}`:      "",
		``:                                 "EOF",
		`{}`:                               `no "vms"`,
		`null`:                             `no "vms"`,
		`[]`:                               "cannot unmarshal",
		`{"vms":{"dev":` + dev:             "EOF",
		`{"vms":{}} {}`:                    "something follows",
		`{"vms":{},"more":1}`:              "unknown field",
		`{"vms":{"other":` + dev + `}}`:    "is for",
		`{"vms":{"../x":{"name":"../x"}}}`: "not a VM name",
		`{"vms":{"dev":{"name":"dev"}}}`:   "size is missing",
		strings.Replace(`{"vms":{"dev":`+dev+`}}`, "512", "99999", 1):                                        "outside",
		strings.Replace(`{"vms":{"dev":`+dev+`}}`, `"base_version"`, `"env":{"LD_X":"1"},"base_version"`, 1): "LD_X",
		strings.Replace(`{"vms":{"dev":`+dev+`}}`, `"base_version"`, `"uid":1000,"base_version"`, 1):         "user 1000",
	} {
		vms, err := decodeRegistry([]byte(text))
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %v; want %q", text, vms, err, want)
		}
	}
}

func TestAnEntryAndASpecMakeEachOther(t *testing.T) {
	spec := proto.VMSpec{
		ID: "dev", Name: "dev", CPUs: 2, MemoryMB: 512, DiskMB: 2048, Env: map[string]string{"A": "b"}, AssetVersion: "7",
		MachineID: newMachineID(), CreatedNS: time.Now().UnixNano(), UID: firstUID + 5, GID: firstUID + 5,
	}
	text, err := encodeRegistry(map[string]Entry{"dev": entryOf(spec)})
	if err != nil {
		t.Fatal(err)
	}
	vms, err := decodeRegistry(text)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(vms["dev"].spec())
	if want, _ := json.Marshal(spec); !bytes.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFilesOverTheirBoundAreNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(path, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readBounded(path, 10); err == nil {
		t.Error("11 bytes were read where 10 are allowed")
	}
	if data, err := readBounded(path, 11); err != nil || len(data) != 11 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if _, err := readBounded(path+"x", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestIDsAreUniqueAndTheirAdjectivesToo(t *testing.T) {
	seen, adjectives := map[string]bool{}, map[string]bool{}
	var used []string
	for range 20 {
		id, err := newID(func(id string) bool { return seen[id] }, used)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(id, "-")
		if len(parts) != 3 || parts[2] != "tmp" || seen[id] || adjectives[parts[0]] {
			t.Errorf("%s after %v", id, used)
		}
		seen[id], adjectives[parts[0]], used = true, true, append(used, id)
	}
	if id, err := newID(func(string) bool { return true }, nil); err == nil {
		t.Errorf("%s was taken", id)
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\n", 5, "a\n"}, {"", 3, ""}, {"a\nb\n", 0, "a\nb\n"}, {"\n\n", 1, "\n"},
	} {
		if got := string(lastLines([]byte(c.text), c.n)); got != c.want {
			t.Errorf("last %d of %q: %q, want %q", c.n, c.text, got, c.want)
		}
	}
}

func TestALogIsBegunAnewWhenItIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 39) + "\n"
	for range 7 {
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(path)
	old, _ := os.ReadFile(path + ".1")
	if string(now) != line || string(old) != line+line {
		t.Errorf("%d and %d bytes", len(now), len(old))
	}
}

func FuzzRegistry(f *testing.F) {
	f.Add([]byte(`{"vms":{"dev":{"name":"dev","ram_mb":512,"cpus":2,"disk_mb":2048,"base_version":"1","created_at":"2026-01-02T03:04:05Z"}}}`))
	f.Add([]byte(`{"vms":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		vms, err := decodeRegistry(data)
		if err != nil {
			return
		}
		text, err := encodeRegistry(vms)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeRegistry(text); err != nil || len(again) != len(vms) {
			t.Fatalf("what was read does not read again: %v", err)
		}
	})
}

func FuzzSpecAndStatus(f *testing.F) {
	f.Add([]byte(`{"id":"a","cpus":1,"memory_mb":256,"disk_mb":1024}`))
	f.Add([]byte(`{"State":"Running","PID":7}`))
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if spec, err := readSpec(path); err == nil && (spec.CPUs < 1 || spec.MemoryMB < 256) {
			t.Fatalf("%+v passes", spec)
		}
		readStatus(path)
	})
}
