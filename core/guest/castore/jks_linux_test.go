package castore

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keyStore makes a store of entries.
func keyStore(count uint32, entries ...[]byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, magicJKS)
	out = binary.BigEndian.AppendUint32(out, versionJKS)
	out = binary.BigEndian.AppendUint32(out, count)
	out = append(out, bytes.Join(entries, nil)...)
	return append(out, digest(out)...)
}

func other(alias string) []byte {
	e := binary.BigEndian.AppendUint32(nil, trusted)
	e = appendText(e, alias)
	e = append(e, make([]byte, 8)...)
	e = appendText(e, kindOfCert)
	return append(e, 0, 0, 0, 3, 'a', 'b', 'c')
}

func private(chain uint32) []byte {
	e := binary.BigEndian.AppendUint32(nil, privateKey)
	e = appendText(e, "server")
	e = append(e, make([]byte, 8)...)
	e = append(e, 0, 0, 0, 2, 'k', 'k')
	e = binary.BigEndian.AppendUint32(e, chain)
	return append(appendText(e, kindOfCert), 0, 0, 0, 1, 'c')
}

func TestJavasStoreHasTheCertificateOnceAndTheOthers(t *testing.T) {
	t.Parallel()
	cert, made := []byte("certificate"), time.UnixMilli(1_700_000_000_000)
	ours := entry(cert, made)
	for name, before := range map[string][]byte{
		"empty": keyStore(0), "others": keyStore(2, other("a"), private(1)), "ours": keyStore(2, ours, other("a")),
		"an old one of ours": keyStore(3, other("a"), entry([]byte("older"), made), other("b")),
	} {
		got, err := addToKeyStore(before, cert, made)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if bytes.Count(got, ours) != 1 || bytes.Contains(got, []byte("older")) || bytes.Contains(got, other("a")) != bytes.Contains(before, other("a")) {
			t.Errorf("%s: %q", name, got)
		}
		again, err := addToKeyStore(got, cert, made)
		if err != nil || !bytes.Equal(got, again) {
			t.Errorf("%s: a second time: %v, %q", name, err, again)
		}
	}
}

func TestStoresThatAreNotUnderstoodAreLeftAlone(t *testing.T) {
	t.Parallel()
	spoiled := keyStore(1, other("a"))
	spoiled[20] ^= 1
	version := keyStore(0)
	version[7] = 1
	for name, c := range map[string]struct {
		text []byte
		err  error
	}{
		"nothing": {nil, errFormat}, "PKCS12": {append([]byte{0x30, 0x82}, make([]byte, 100)...), errFormat}, "an old version": {version, errFormat},
		"another password": {spoiled, errPassword}, "too few entries": {keyStore(2, other("a")), errKeyStore},
		"too many entries": {keyStore(0, other("a")), errKeyStore}, "a huge count": {keyStore(1<<31, other("a")), errKeyStore},
		"an unknown kind": {keyStore(1, append([]byte{0, 0, 0, 3}, other("a")[4:]...)), errKeyStore},
		"a long chain":    {keyStore(1, private(1<<30)), errKeyStore}, "a long certificate": {keyStore(1, append(other("a")[:len(other("a"))-7:len(other("a"))-7], 0xff, 0xff, 0xff, 0xff)), errKeyStore},
	} {
		if got, err := addToKeyStore(c.text, []byte("cert"), time.Now()); !errors.Is(err, c.err) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAStoreThatIsSkippedIsReported(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put(t, root, java, []byte("PKCS12, say"))
	r, err := Install(root, authority(t, "capsem", true))
	if err != nil || len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0], "Java") {
		t.Errorf("%q, %v", r.Skipped, err)
	}
	if got := get(t, root, java); string(got) != "PKCS12, say" {
		t.Errorf("it is now %q", got)
	}
}

func TestJavaReadsTheStore(t *testing.T) {
	t.Parallel()
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Fatal("no keytool, which .ci/deps test installs: ", err)
	}
	text, err := os.ReadFile(java)
	if err != nil {
		t.Fatal("no store of Java's, which .ci/deps test installs: ", err)
	}
	root, ca := t.TempDir(), authority(t, "capsem", true)
	put(t, root, java, text)
	install(t, root, ca)
	out, err := exec.CommandContext(t.Context(), keytool, "-exportcert", "-rfc", "-alias", alias, "-keystore", filepath.Join(root, java), "-storepass", passwordJKS).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, _ := pem.Decode(ca)
	if got, _ := pem.Decode(out); got == nil || !bytes.Equal(got.Bytes, want.Bytes) {
		t.Errorf("Java reads %s", out)
	}
}

func FuzzAddToKeyStore(f *testing.F) {
	f.Add(keyStore(2, other("a"), private(1)))
	f.Add(keyStore(1, entry([]byte("c"), time.UnixMilli(1))))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Past the digest, which would keep all of it from being read.
		if len(text) > headJKS+20 {
			body := text[:len(text)-20]
			text = append(bytes.Clone(body), digest(body)...)
		}
		got, err := addToKeyStore(text, []byte("cert"), time.UnixMilli(1))
		if err != nil {
			return
		}
		if again, err := addToKeyStore(got, []byte("cert"), time.UnixMilli(1)); err != nil || !bytes.Equal(got, again) {
			t.Errorf("a second time: %v", err)
		}
	})
}
