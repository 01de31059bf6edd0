package snapshot

import (
	"bytes"
	"encoding/binary"
	"path"
	"reflect"
	"testing"

	"capsem/core/api"
)

func sample(t testing.TB) *manifest {
	t.Helper()
	m := &manifest{entries: []entry{
		{path: "d/f\xff", kind: kindFile, mode: 0o644, size: 3, ino: 7, mtime: -5, ctime: 1 << 60, hash: hash{1}, marks: markDoubt},
		{path: "d", kind: kindDir, mode: 0o755, xattrs: []xattr{{"user.a", "1"}, {"user.b", ""}}},
		{path: "d-", kind: kindSymlink, target: "../x", uid: 1 << 31},
	}}
	m.Origin, m.Name, m.Seq, m.Slot, m.Created = api.OriginManual, "name", 9, 3, 1
	m.finish()
	return m
}

// sealed gives data the checksum that it needs to get past the first check.
func sealed(data []byte) []byte {
	if len(data) < len(magic)+len(hash{}) {
		return data
	}
	data = bytes.Clone(data)
	check := checksum(data[len(magic)+len(hash{}):])
	copy(data, magic)
	copy(data[len(magic):], check[:])
	return data
}

func TestAManifestComesBackAsItWas(t *testing.T) {
	m := sample(t)
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode(data)
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("%+v, %v, want %+v", back, err, m)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := decode(bad); err == nil {
			t.Errorf("a changed byte %d is not seen", i)
		}
		if _, err := decode(data[:i]); err == nil {
			t.Errorf("cut off at %d it is taken", i)
		}
	}
}

func TestManifestsThatLeadAstrayAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(m *manifest){
		"up":                  func(m *manifest) { m.entries[2].path = ".." },
		"up below":            func(m *manifest) { m.entries[1].path = "d/.." },
		"absolute":            func(m *manifest) { m.entries[0].path = "/etc" },
		"nothing":             func(m *manifest) { m.entries[0].path = "" },
		"NUL":                 func(m *manifest) { m.entries[1].path = "d/\x00" },
		"twice":               func(m *manifest) { m.entries[2].path = "d/f\xff" },
		"below a file":        func(m *manifest) { m.entries[2].path = "d/f\xff/x" },
		"below a link":        func(m *manifest) { m.entries[0].kind, m.entries[0].target, m.entries[0].xattrs = kindSymlink, "/", nil },
		"no such directory":   func(m *manifest) { m.entries[2].path = "e/x" },
		"a device":            func(m *manifest) { m.entries[2].kind = 9 },
		"setuid":              func(m *manifest) { m.entries[1].mode = 0o4755 },
		"trusted attribute":   func(m *manifest) { m.entries[0].xattrs[0].name = "security.capability" },
		"attributes unsorted": func(m *manifest) { m.entries[0].xattrs[1].name = "user.0" },
		"more than there are": func(m *manifest) { m.Entries = 4 },
		"fewer":               func(m *manifest) { m.Entries = 2 },
		"a slot too far":      func(m *manifest) { m.Slot = maxSlot + 1 },
		"another origin":      func(m *manifest) { m.Origin = "else" },
		"a newer version":     func(m *manifest) { m.Version = 2 },
	} {
		m := sample(t)
		spoil(m)
		data, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(data); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func FuzzManifest(f *testing.F) {
	data, err := sample(f).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(magic))
	f.Add(binary.BigEndian.AppendUint32(append([]byte(magic), make([]byte, 32)...), 1<<31))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(sealed(data))
		if err != nil {
			return
		}
		dirs := map[string]bool{".": true}
		for _, e := range m.entries {
			if path.Clean("/" + e.path)[1:] != e.path || !dirs[path.Dir(e.path)] {
				t.Errorf("%q is taken", e.path)
			}
			dirs[e.path] = e.kind == kindDir
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decode(again); err != nil || !reflect.DeepEqual(back.entries, m.entries) {
			t.Errorf("it does not come back: %v", err)
		}
	})
}

func FuzzJournal(f *testing.F) {
	data, err := encMode.Marshal(journal{Version: 1, Path: []byte("a"), Target: 1, Undo: 2, Staged: [][]byte{[]byte("a/b")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "s-0/x")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		j, err := decodeJournal(data)
		if err != nil {
			return
		}
		for _, p := range j.Staged {
			if !validPath(string(p)) {
				t.Errorf("%q is taken", p)
			}
		}
		_ = j.path(name)
	})
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"", "/root", "/root/a", "a/../b", "./a//b/", "/rootx", "a\x00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		clean, err := cleanPath(p)
		if err == nil && clean != "" && (!validPath(clean) || path.Clean("/" + clean)[1:] != clean) {
			t.Errorf("%q became %q", p, clean)
		}
	})
}
