//go:build linux

package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/guest/guesttest"
	"capsem/core/proto"
)

func newCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(4_000_000_000, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Each session brings the certificate: a guest that was forked or resumed trusts the one of its host, and that one only.
func TestTheHostsCertificateIsTrustedBeforeTheFirstCommand(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	in, _ := startIn(t, root)
	var old []byte
	for _, ca := range [][]byte{newCA(t), newCA(t)} {
		host, st, _ := controlOf(t, in)
		c := config()
		c.CA, c.Env = ca, map[string]string{"AWS_CA_BUNDLE": "mine"}
		say(t, st, c, proto.BootConfigDone{})
		if m, err := proto.ReadGuest(st); err != nil {
			t.Fatalf("%T, %v", m, err)
		} else if ready, ok := m.(proto.BootReady); !ok || len(ready.Failed) > 0 {
			t.Errorf("%+v", m)
		}
		if m, err := proto.ReadGuest(st); err != nil {
			t.Fatalf("%T, %v", m, err)
		}
		bundle, err := os.ReadFile(filepath.Join(root, "/etc/ssl/certs/ca-certificates.crt"))
		if err != nil || !bytes.Contains(bundle, ca) || old != nil && bytes.Contains(bundle, old) {
			t.Errorf("the bundle is %q, %v", bundle, err)
		}
		got := guesttest.Collect(t, guesttest.Open(t, host, proto.PortExec, &proto.ExecRequest{Command: "echo $SSL_CERT_FILE $AWS_CA_BUNDLE", Dir: "/"}))
		if got.Stdout != "/etc/ssl/certs/ca-certificates.crt mine\n" {
			t.Errorf("%q", got.Stdout)
		}
		old = ca
		_ = host.Close()
	}
}

func TestABadCertificateIsReportedAndDoesNoOtherHarm(t *testing.T) {
	t.Parallel()
	in, _ := start(t)
	_, st, _ := controlOf(t, in)
	c := config()
	c.CA = []byte("no certificate\x1b[2J")
	say(t, st, c, proto.BootConfigDone{})
	m, err := proto.ReadGuest(st)
	ready, ok := m.(proto.BootReady)
	if err != nil || !ok || len(ready.Failed) != 1 || !strings.HasPrefix(ready.Failed[0], "trust of the proxy: ") {
		t.Errorf("%+v, %v", m, err)
	}
}
