package egress

import (
	"crypto/tls"
	"strings"

	"capsem/core/fault"
	"capsem/core/policy"
)

// clientCert is a certificate that is shown to some hosts.
type clientCert struct {
	hosts policy.HostPattern
	cert  tls.Certificate
}

// loadClientCerts reads the setting network.client_certs.
func loadClientCerts(texts []string) ([]clientCert, error) {
	const hint = "write each entry of network.client_certs as \"HOST=FILE\" or \"HOST=FILE,KEYFILE\", files in PEM"
	var out []clientCert
	for _, text := range texts {
		host, files, ok := strings.Cut(text, "=")
		certFile, keyFile, two := strings.Cut(files, ",")
		if !two {
			keyFile = certFile
		}
		if !ok || certFile == "" || keyFile == "" {
			return nil, fault.New(fault.Invalid, "%.80q is no client certificate for a host", text).WithHint(hint)
		}
		hosts, err := policy.ParseHostPattern(host)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "%.80q is no host pattern", host).WithHint(hint)
		}
		certPEM, err := readPEM(certFile)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "the client certificate %s cannot be read", certFile).WithHint(hint)
		}
		keyPEM, err := readPEM(keyFile)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "the key %s of a client certificate cannot be read", keyFile).WithHint(hint)
		}
		cert, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "%s has no client certificate with its key", certFile).WithHint(hint)
		}
		out = append(out, clientCert{hosts, cert})
	}
	return out, nil
}

// clientCert gives the certificate for a host when the host asks for one, nil if there is none for it. It is shown whatever authorities
// the host names: owners know better than that list which certificate theirs is.
func (d *Dialer) clientCert(host string) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	for i := range d.certs {
		if c := &d.certs[i]; c.hosts.Match(host) {
			return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.cert, nil }
		}
	}
	return nil
}
