package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTLSIsVerifiedAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	trusted, other := newCA(t), newCA(t)
	for name, c := range map[string]struct {
		cert tls.Certificate
		host string
		want string
	}{
		"good":              {trusted.leaf(0, "up.test"), "up.test", ""},
		"good address":      {trusted.leaf(0, "127.0.0.1"), "127.0.0.1", ""},
		"unknown authority": {other.leaf(0, "up.test"), "up.test", "its certificate is of an authority that this machine does not trust; if you trust that authority, put its certificate into a file and name it in network.ca_files of user.toml"},
		"expired":           {trusted.leaf(-2*time.Hour, "up.test"), "up.test", "its certificate is not valid at this time ("},
		"not yet valid":     {trusted.leaf(2*time.Hour, "up.test"), "up.test", "its certificate is not valid at this time ("},
		"another name":      {trusted.leaf(0, "down.test"), "up.test", "its certificate is for another name"},
		"another address":   {trusted.leaf(0, "127.0.0.2"), "127.0.0.1", "its certificate is for another name"},
	} {
		s := serveAt(t, "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.cert}, NextProtos: []string{"h2", "http/1.1"}})
		d := newDialer(t, Config{Resolver: always("up.test", "127.0.0.1"), CAFiles: []string{trusted.file}})
		conn, err := d.DialTLS(t.Context(), c.host, s.port, anything, []string{"h2"})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if st := conn.ConnectionState(); st.NegotiatedProtocol != "h2" || len(st.VerifiedChains) == 0 {
				t.Errorf("%s: %+v", name, st)
			}
			if got := readAll(t, conn); got != "hello from 127.0.0.1\n" {
				t.Errorf("%s: %q", name, got)
			}
			continue
		}
		want := "no TLS with " + c.host + ":" + strconv.Itoa(int(s.port)) + ": " + c.want
		if got := line(err); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestWhatSpeaksNoTLSIsSaidToBe(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	_, err := newDialer(t, Config{}).DialTLS(t.Context(), "127.0.0.1", s.port, anything, nil)
	if got := line(err); !strings.HasSuffix(got, "what answers there does not speak TLS") {
		t.Errorf("%q", got)
	}
}

func TestAProtocolThatTheServerLacksIsSaid(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	s := serveAt(t, "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.leaf(0, "127.0.0.1")}, NextProtos: []string{"other"}})
	_, err := newDialer(t, Config{CAFiles: []string{c.file}}).DialTLS(t.Context(), "127.0.0.1", s.port, anything, []string{"http/1.1"})
	if got := line(err); !strings.HasSuffix(got, "it speaks none of the protocols that were offered") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTheCertificateOfAHostIsShownToThatHostOnly(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	mine := c.pair(c.leaf(0, "client one"))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := serveAt(t, "127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{c.leaf(0, "a.up.test", "other.test")}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: version, MinVersion: version,
		})
		d := newDialer(t, Config{
			Resolver: &liar{names: map[string][][]string{"a.up.test": {{"127.0.0.1"}}, "other.test": {{"127.0.0.1"}}}},
			CAFiles:  []string{c.file}, ClientCerts: []string{"*.up.test=" + mine},
		})
		conn, err := d.DialTLS(t.Context(), "a.up.test", s.port, anything, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, conn); got != "hello from 127.0.0.1\n" {
			t.Errorf("%q", got)
		}
		conn, err = d.DialTLS(t.Context(), "other.test", s.port, anything, nil)
		if err == nil { // in TLS 1.3 the server says so later
			_, err = conn.Read(make([]byte, 1))
			err = Explain("other.test", s.port, err)
			_ = conn.Close()
		}
		if got := line(err); !strings.Contains(got, "client certificate") && !strings.Contains(got, "refused the handshake") {
			t.Errorf("without a certificate: %q (%v)", got, err)
		}
	}
}

func TestSettingsThatCannotBeUsedAreNamed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCA(t)
	for _, k := range []struct {
		config Config
		want   string
	}{
		{Config{CAFiles: []string{empty}}, "network.ca_files"},
		{Config{CAFiles: []string{empty + ".not"}}, "network.ca_files"},
		{Config{CAFiles: []string{t.TempDir()}}, "network.ca_files"},
		{Config{CAFiles: []string{"/dev/zero"}}, "network.ca_files"},
		{Config{ClientCerts: []string{"no file"}}, "network.client_certs"},
		{Config{ClientCerts: []string{"a b=" + c.file}}, "network.client_certs"},
		{Config{ClientCerts: []string{"a.test=" + c.file}}, "network.client_certs"}, // no key
		{Config{ClientCerts: []string{"a.test=" + empty + ".not"}}, "network.client_certs"},
		{Config{Proxy: "socks5://x:1"}, "network.proxy"},
		{Config{Proxy: "http://x:1/path"}, "network.proxy"},
		{Config{Proxy: "x:1"}, "network.proxy"},
		{Config{Proxy: "http://user:secret@ x"}, "network.proxy"},
	} {
		_, err := New(k.config)
		if got := line(err); !strings.Contains(got, k.want) || strings.Contains(got+errors.Join(err).Error(), "secret") {
			t.Errorf("%+v: %q", k.config, got)
		}
	}
}
