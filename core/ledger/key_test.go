package ledger

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestKeyIsMadeOnceAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca", "ledger.key")
	keys := make([]ed25519.PrivateKey, 8)
	var group sync.WaitGroup
	for i := range keys {
		group.Go(func() {
			key, err := LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	group.Wait()
	for _, key := range keys {
		if !bytes.Equal(key, keys[0]) || len(key) != ed25519.PrivateKeySize {
			t.Fatal("not all got the same key")
		}
	}
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	check(t, err)
	if len(entries) != 1 {
		t.Fatal("drafts are left:", entries)
	}
}

func TestKeyFileThatWillNotDoIsRefusedAndKept(t *testing.T) {
	pub, err := EncodePublicKey(public(testKey(t)))
	check(t, err)
	tests := map[string]struct {
		data []byte
		mode os.FileMode
	}{
		"empty":           {nil, 0o600},
		"nonsense":        {[]byte("hello"), 0o600},
		"public":          {pub, 0o600},
		"read by others":  {[]byte("x"), 0o644},
		"another's block": {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			check(t, os.WriteFile(path, test.data, test.mode))
			if _, err := LoadOrCreateKey(path); err == nil {
				t.Fatal("taken")
			}
			left, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(left, test.data) {
				t.Fatal("replaced", err)
			}
		})
	}
}

func TestPublicKeyTravels(t *testing.T) {
	key := public(testKey(t))
	data, err := EncodePublicKey(key)
	check(t, err)
	back, err := ParsePublicKey(data)
	if err != nil || !bytes.Equal(back, key) {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), data[:len(data)/2]} {
		if _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
