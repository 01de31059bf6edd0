// Package egress is how a VM's connections leave the host: it resolves a name, has each address permitted before it is dialled, and ends
// TLS against the host's roots. What is dialled is an address that was permitted, never the name, so a name that points elsewhere a moment
// later gains nothing.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"capsem/core/fault"
)

// Resolver gives the real addresses of a name.
type Resolver interface {
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
}

// Permit is asked about each address before it is dialled; an error refuses it. Its calls for one Dial come one after the other.
type Permit func(ctx context.Context, addr netip.Addr) error

// Config is what a Dialer is made of.
type Config struct {
	// Resolver resolves names.
	Resolver Resolver
	// Proxy is the HTTP proxy through which the world is reached, as a URL of http or https that may carry a user and password.
	// Empty is none.
	Proxy string
	// CAFiles are files of certificates (PEM) that are trusted besides the system's.
	CAFiles []string
	// ClientCerts are certificates to show to hosts that ask for one, each "HOST=FILE" or "HOST=FILE,KEYFILE" with a host pattern as in
	// rules and files in PEM. The first that fits the host is shown.
	ClientCerts []string
	// Log takes what went wrong in detail; nil logs nothing.
	Log *slog.Logger
}

// The bounds of one connection.
const (
	// lookupTime is for the name, connectTime for one address, tlsTime for a handshake, proxyTime for the proxy to have connected.
	lookupTime, connectTime, tlsTime, proxyTime = 10 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second
	// proxyLookupTime is for a name where there is a proxy: who needs one often has no name server that knows the world.
	proxyLookupTime = 2 * time.Second
	// stagger is how long an address has until the next is tried beside it (RFC 8305), maxAddrs how many of a name are tried.
	stagger  = 250 * time.Millisecond
	maxAddrs = 8
	// maxPEM bounds a file of certificates, in bytes; maxSessions the TLS sessions that are kept for resumption.
	maxPEM, maxSessions = 4 << 20, 256
)

// Dialer makes connections for one VM. It may be used by any number of goroutines.
type Dialer struct {
	resolver Resolver
	log      *slog.Logger
	// roots are read when TLS is first wanted: that takes milliseconds, which the start of a VM can do without.
	roots    func() (*x509.CertPool, error)
	proxy    *proxy
	certs    []clientCert
	sessions tls.ClientSessionCache
}

// New makes a Dialer; it reads the files. Errors are faults that name the setting.
func New(c Config) (*Dialer, error) {
	d := &Dialer{resolver: c.Resolver, log: c.Log, sessions: tls.NewLRUClientSessionCache(maxSessions)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	own, err := readRoots(c.CAFiles)
	if err != nil {
		return nil, err
	}
	d.roots = sync.OnceValues(func() (*x509.CertPool, error) { return loadRoots(own) })
	if d.certs, err = loadClientCerts(c.ClientCerts); err != nil {
		return nil, err
	}
	if c.Proxy != "" {
		if d.proxy, err = parseProxy(c.Proxy); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// readRoots reads the owner's files of certificates.
func readRoots(files []string) (texts [][]byte, err error) {
	for _, file := range files {
		text, err := readPEM(file)
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "%s cannot be read: %s", file, err).WithHint("look at network.ca_files in user.toml")
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Invalid, "there is no certificate in %s", file).
				WithHint("network.ca_files names files with certificates in PEM")
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// loadRoots is the system's roots and the owner's.
func loadRoots(own [][]byte) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "the system's certificates cannot be read").
			WithHint("install the system's ca-certificates")
	}
	for _, text := range own {
		roots.AppendCertsFromPEM(text)
	}
	return roots, nil
}

func readPEM(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open certificates: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		err = fmt.Errorf("%s is longer than 4 MiB", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return text, nil
}

// target is a connection that is wanted.
type target struct {
	// host is a normal name or address, literal whether it is an address.
	host    string
	literal bool
	port    uint16
}

func (t target) String() string {
	return net.JoinHostPort(t.host, strconv.FormatUint(uint64(t.port), 10))
}

// parseProxy reads the setting network.proxy.
func parseProxy(text string) (*proxy, error) {
	wrong := func(what string) error {
		return fault.New(fault.Invalid, "network.proxy %s", what).
			WithHint("write it as \"http://proxy.example:3128\", with user:password@ before the host if it wants them")
	}
	u, err := url.Parse(text)
	if err != nil { // its text may hold the password
		return nil, wrong("is no URL")
	}
	p := &proxy{host: u.Hostname(), port: u.Port(), tls: u.Scheme == "https"}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, wrong("must be an http or https URL")
	case p.host == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "":
		return nil, wrong("must be only a scheme, a host and a port")
	case p.port == "" && p.tls:
		p.port = "443"
	case p.port == "":
		p.port = "80"
	}
	if u.User != nil {
		password, _ := u.User.Password()
		p.auth = basicAuth(u.User.Username(), password)
	}
	return p, nil
}
