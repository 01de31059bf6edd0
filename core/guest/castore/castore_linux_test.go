package castore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority makes a certificate in PEM.
func authority(t testing.TB, cn string, isCA bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn, Organization: []string{"Capsem  of  ÄÖ"}},
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(4_000_000_000, 0),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func put(t *testing.T, root, name string, text []byte) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, root, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func install(t *testing.T, root string, ca []byte) Result {
	t.Helper()
	r, err := Install(root, ca)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Skipped) > 0 {
		t.Errorf("skipped: %q", r.Skipped)
	}
	return r
}

// links are our links by hash.
func links(t *testing.T, root string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, dir, "????????.*"))
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, path := range all {
		if target, err := os.Readlink(path); err == nil && target == name {
			ours = append(ours, filepath.Base(path))
		}
	}
	return ours
}

func TestTheCertificateIsInTheSystemsStoreOnce(t *testing.T) {
	t.Parallel()
	other, ca := authority(t, "other", true), authority(t, "capsem", true)
	for name, before := range map[string][]byte{
		"no store": nil, "empty": {}, "another's": other, "without a last line end": bytes.TrimRight(other, "\n"),
		"there already":        append(bytes.Clone(other), ca...),
		"marks without an end": append(append([]byte{}, begin...), other...),
	} {
		root := t.TempDir()
		if before != nil {
			put(t, root, bundle, before)
		}
		r := install(t, root, ca)
		text := get(t, root, bundle)
		if bytes.Count(text, ca) != 1 || bytes.Count(text, other) != bytes.Count(append(before, '\n'), other) {
			t.Errorf("%s: %s", name, text)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			t.Errorf("%s: no certificates in %s", name, text)
		}
		for range 2 {
			install(t, root, ca)
		}
		if again := get(t, root, bundle); !bytes.Equal(text, again) {
			t.Errorf("%s: it changes to %s", name, again)
		}
		for key, path := range r.Env {
			if !bytes.Contains(get(t, root, path), ca) {
				t.Errorf("%s: it is not where %s says", name, key)
			}
		}
		if ours := links(t, root); len(ours) != 1 || !strings.HasSuffix(ours[0], ".0") {
			t.Errorf("%s: links %q", name, ours)
		}
		if left, _ := filepath.Glob(filepath.Join(root, dir, ".capsem-*")); len(left) > 0 {
			t.Errorf("%s: %q are left", name, left)
		}
	}
}

func TestAnotherCertificateTakesThePlaceOfTheOneBefore(t *testing.T) {
	t.Parallel()
	root, other, first, second := t.TempDir(), authority(t, "other", true), authority(t, "first", true), authority(t, "second", true)
	put(t, root, bundle, other)
	install(t, root, first)
	was := links(t, root)
	install(t, root, second)
	text := get(t, root, bundle)
	if bytes.Contains(text, first) || bytes.Count(text, second) != 1 || !bytes.Contains(text, other) || bytes.Count(text, begin) != 1 {
		t.Errorf("%s", text)
	}
	if now := links(t, root); len(now) != 1 || now[0] == was[0] {
		t.Errorf("links %q", now)
	}
	// And where update-ca-certificates has written the bundle in between, without marks.
	put(t, root, bundle, append(bytes.Clone(other), second...))
	install(t, root, second)
	if text := get(t, root, bundle); !bytes.Equal(text, append(bytes.Clone(other), second...)) {
		t.Errorf("%s", text)
	}
	install(t, root, first)
	if text := get(t, root, bundle); bytes.Contains(text, second) || bytes.Count(text, first) != 1 || !bytes.Contains(text, other) {
		t.Errorf("%s", text)
	}
}

func TestAHashThatIsTakenGetsTheNextNumber(t *testing.T) {
	t.Parallel()
	root, ca := t.TempDir(), authority(t, "capsem", true)
	install(t, root, ca)
	path := filepath.Join(root, dir, links(t, root)[0])
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("somebody-else.pem", path); err != nil {
		t.Fatal(err)
	}
	install(t, root, ca)
	install(t, root, ca)
	if now := links(t, root); len(now) != 1 || !strings.HasSuffix(now[0], ".1") {
		t.Errorf("links %q", now)
	}
}

func TestWhatIsNoCAIsRefused(t *testing.T) {
	t.Parallel()
	ca := authority(t, "capsem", true)
	for name, text := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "a server's": authority(t, "leaf", false), "two": append(bytes.Clone(ca), ca...),
		"a key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "cut off": ca[:len(ca)/2],
		"too long":              append(bytes.Clone(ca), bytes.Repeat([]byte("\n"), maxCert)...),
		"no certificate inside": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
	} {
		root := t.TempDir()
		if _, err := Install(root, text); err == nil {
			t.Errorf("%s: it is installed", name)
		}
		if left, _ := os.ReadDir(root); len(left) > 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

func TestAStoreThatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put(t, root, "/etc/ssl/certs/ca-certificates.crt/file", nil)
	if _, err := Install(root, authority(t, "capsem", true)); err == nil {
		t.Error("a directory in the place of the store is no error")
	}
}

func TestOpenSSLTrustsTheStore(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("no openssl, which .ci/deps test installs: ", err)
	}
	for _, cn := range []string{"capsem", "  Capsem   CA\tof É "} {
		root, ca := t.TempDir(), authority(t, cn, true)
		install(t, root, ca)
		// Only by its hash: the link leads to a path below root.
		if err := os.Remove(filepath.Join(root, dir, name)); err != nil {
			t.Fatal(err)
		}
		put(t, root, dir+"/"+name, ca)
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-no-CAfile", "-no-CAstore", "-CApath", filepath.Join(root, dir), filepath.Join(root, source)).CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v: %s", cn, err, out)
		}
		out, err = exec.CommandContext(t.Context(), openssl, "x509", "-noout", "-subject_hash", "-in", filepath.Join(root, source)).CombinedOutput()
		if err != nil || links(t, root)[0] != strings.TrimSpace(string(out))+".0" {
			t.Errorf("%q: OpenSSL's hash is %s, %v", cn, out, err)
		}
	}
}

// The machine's own store has the hashes of many names, made by OpenSSL.
func TestHashesAreThoseOfOpenSSL(t *testing.T) {
	t.Parallel()
	all, err := filepath.Glob(dir + "/????????.[0-9]")
	if err != nil || len(all) == 0 {
		t.Fatal("no store of certificates, which .ci/deps test installs: ", err)
	}
	seen := 0
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		block, _ := pem.Decode(text)
		if block == nil {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		hash, err := subjectHash(c.RawSubject)
		if errors.Is(err, errOldString) {
			continue
		}
		if err != nil || !strings.HasPrefix(filepath.Base(path), hash+".") {
			t.Errorf("%s (%v): %s, %v", path, c.Subject, hash, err)
		}
		seen++
	}
	t.Logf("%d names", seen)
}

func FuzzSubjectHash(f *testing.F) {
	block, _ := pem.Decode(authority(f, "capsem", true))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.RawSubject)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, subject []byte) {
		if hash, err := subjectHash(subject); err == nil && len(hash) != 8 {
			t.Error(hash)
		}
	})
}

func TestCheckFindsAStoreThatLostTheCertificate(t *testing.T) {
	root := t.TempDir()
	if err := Check(root); err == nil {
		t.Error("nothing was ever installed")
	}
	install(t, root, authority(t, "one", true))
	if err := Check(root); err != nil {
		t.Error(err)
	}
	put(t, root, bundle, authority(t, "other", true))
	if err := Check(root); err == nil {
		t.Error("the bundle has another")
	}
	put(t, root, source, []byte("x"))
	if err := Check(root); err == nil {
		t.Error("the certificate is none")
	}
}
