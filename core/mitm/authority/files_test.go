package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/paths"
)

func TestTheCAIsMadeOnceWithModesOfItsOwn(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.CertPEM(), second.CertPEM()) {
		t.Error("it was made again")
	}
	for name, mode := range map[string]os.FileMode{paths.CACertFile: 0o644, paths.CAKeyFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestManyCreatorsGetTheSameCA(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	all := make([]*Authority, 16)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			a, err := LoadOrCreate(dir)
			if err != nil {
				t.Error(err)
				return
			}
			all[i] = a
		})
	}
	wg.Wait()
	for _, a := range all {
		if a == nil || !a.cert.Equal(all[0].cert) || !a.key.Equal(all[0].key) {
			t.Fatal("they differ")
		}
	}
}

// A creator that died after the key leaves work for the next.
func TestAKeyWithoutCertificateGetsOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, paths.CACertFile)); err != nil {
		t.Fatal(err)
	}
	b, err := LoadOrCreate(dir)
	if err != nil || !a.key.Equal(b.key) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsDamagedOrNotOursIsRefused(t *testing.T) {
	t.Parallel()
	other := pemKey(t, elliptic.P256())
	for name, c := range map[string]struct {
		spoil func(dir string) error
		code  fault.Code
	}{
		"empty key":             {write(paths.CAKeyFile, nil, 0o600), fault.Invalid},
		"damaged key":           {write(paths.CAKeyFile, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600), fault.Invalid},
		"key of another kind":   {write(paths.CAKeyFile, pemKey(t, elliptic.P384()), 0o600), fault.Invalid},
		"key of another CA":     {write(paths.CAKeyFile, other, 0o600), fault.Invalid},
		"key that others read":  {func(dir string) error { return os.Chmod(filepath.Join(dir, paths.CAKeyFile), 0o640) }, fault.Forbidden},
		"certificate of others": {func(dir string) error { return os.Chmod(filepath.Join(dir, paths.CACertFile), 0o666) }, fault.Forbidden},
		"no key":                {func(dir string) error { return os.Remove(filepath.Join(dir, paths.CAKeyFile)) }, fault.Invalid},
		"damaged certificate":   {write(paths.CACertFile, []byte("x"), 0o644), fault.Invalid},
		"a leaf as certificate": {leafAsCA, fault.Invalid},
		"a link as key": {func(dir string) error {
			name := filepath.Join(dir, paths.CAKeyFile)
			if err := os.Rename(name, name+"2"); err != nil {
				return err
			}
			return os.Symlink(name+"2", name)
		}, fault.Forbidden},
		"a directory as key": {func(dir string) error {
			name := filepath.Join(dir, paths.CAKeyFile)
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.Mkdir(name, 0o700)
		}, fault.Forbidden},
	} {
		dir := t.TempDir()
		if _, err := LoadOrCreate(dir); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(dir); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrCreate(dir)
		if _, _, hint := fault.Public(err); !fault.Is(err, c.code) || hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKeyOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := LoadOrCreate(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, paths.CAKeyFile), 12345, -1); err != nil {
		t.Skip("only root gives files away")
	}
	if _, err := LoadOrCreate(dir); !fault.Is(err, fault.Forbidden) {
		t.Errorf("%v", err)
	}
}

func TestAnExpiredCAIsNotRenewedSilently(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	late := func() time.Time { return a.NotAfter().Add(time.Second) }
	if _, err := loadOrCreate(dir, late); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	if b, err := LoadOrCreate(dir); err != nil || !b.cert.Equal(a.cert) {
		t.Errorf("%v", err)
	}
}

func write(name string, data []byte, mode os.FileMode) func(string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), data, mode) }
}

func pemKey(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
}

func leafAsCA(dir string) error {
	a, err := LoadOrCreate(dir)
	if err != nil {
		return err
	}
	leaf, err := a.Leaf("x.test")
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: leaf.Certificate[0]})
	return os.WriteFile(filepath.Join(dir, paths.CACertFile), text, 0o600)
}
