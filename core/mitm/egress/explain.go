package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"capsem/core/dns"
	"capsem/core/fault"
)

var errNoAddress = errors.New("no address that can be dialled")

// lookupError is one of the resolver.
type lookupError struct{ err error }

func (e *lookupError) Error() string { return "look up: " + e.err.Error() }
func (e *lookupError) Unwrap() error { return e.err }

// refusedError is an error of permit.
type refusedError struct {
	addr netip.Addr
	err  error
}

func (e *refusedError) Error() string { return "dial " + e.addr.String() + ": " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// Explain makes such a fault of an error of a connection that was made: a server may refuse a client's certificate, or hang up, only
// once it is read from. An error that it does not know it returns as it is.
func Explain(host string, port uint16, err error) error {
	t := target{host: host, port: port}
	if remoteAlert(err) != "" {
		return explainTLS(t, err)
	}
	return explain(t, err)
}

func badTarget(host string, port uint16) error {
	return fault.New(fault.Invalid, "%.80q port %d is nothing to connect to", host, port)
}

// explain makes a fault of what went wrong on the way to a target: one line that names it, and no internals. Errors of permit and of the
// caller's own context pass through.
func explain(t target, err error) error {
	if _, refused := errors.AsType[*refusedError](err); refused {
		return err
	}
	if looked, ok := errors.AsType[*lookupError](err); ok {
		return explainLookup(t, looked)
	}
	what := reason(err)
	if what == "" {
		return err
	}
	code := fault.Unavailable
	if timedOut(err) {
		code = fault.Timeout
	}
	return fault.Wrap(err, code, "cannot connect to %s: %s", t, what)
}

func explainLookup(t target, err *lookupError) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, dns.ErrNoName):
		return fault.Wrap(err, fault.NotFound, "there is no host %s", t.host)
	case errors.Is(err, dns.ErrNoAddress), errors.Is(err, errNoAddress):
		return fault.Wrap(err, fault.NotFound, "the host %s has no address", t.host)
	case errors.Is(err, dns.ErrTooMany):
		return fault.Wrap(err, fault.LimitReached, "%s is not looked up: there were too many lookups in a short time", t.host)
	case timedOut(err):
		return fault.Wrap(err, fault.Timeout, "the name %s cannot be resolved: the name servers do not answer", t.host).
			WithHint("look at network.dns in user.toml and the host's own network")
	}
	return fault.Wrap(err, fault.Unavailable, "the name %s cannot be resolved", t.host).
		WithHint("look at network.dns in user.toml and the host's own network")
}

// reason says in words why a connection failed; empty if it is no such failure.
func reason(err error) string {
	for _, r := range []struct {
		is   error
		text string
	}{
		{syscall.ECONNREFUSED, "nothing listens there (connection refused)"},
		{syscall.EHOSTUNREACH, "no route to that host"},
		{syscall.ENETUNREACH, "this machine has no route to that network"},
		{syscall.EADDRNOTAVAIL, "this machine has no address to connect from"},
		{syscall.ECONNRESET, "it hung up (connection reset)"},
		{syscall.EPIPE, "it hung up"},
		{syscall.EACCES, "this machine forbids it"},
		{syscall.EPERM, "this machine forbids it"},
		{syscall.EMFILE, "this process has too many open files"},
		{syscall.ENFILE, "this machine has too many open files"},
	} {
		if errors.Is(err, r.is) {
			return r.text
		}
	}
	if looked, ok := errors.AsType[*net.DNSError](err); ok && looked.IsNotFound {
		return "there is no such host"
	}
	if timedOut(err) {
		return "no answer in time"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && !errors.Is(err, context.Canceled) {
		return "the connection failed (" + op.Op + ")"
	}
	return ""
}

func timedOut(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// explainTLS makes a fault of a failed handshake.
func explainTLS(t target, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	wrapped := fault.Wrap(err, fault.Unavailable, "no TLS with %s: %s", t, tlsReason(err))
	if timedOut(err) {
		wrapped.Code = fault.Timeout
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return wrapped.WithHint("if you trust that authority, put its certificate into a file and name it in network.ca_files of user.toml")
	}
	if remoteAlert(err) == alertCertRequired {
		return wrapped.WithHint("name a certificate for it in network.client_certs of user.toml")
	}
	return wrapped
}

// What crypto/tls calls the alerts (RFC 8446) of a server that did not like the client's certificate, or that there was none, and others.
const (
	alertBadCert      = "tls: bad certificate"
	alertCertRequired = "tls: certificate required"
	alertNoName       = "tls: unrecognized name"
	alertNoProtocol   = "tls: no application protocol"
)

// remoteAlert is the alert of the other side, or empty. Its type is not exported, so its text is what there is.
func remoteAlert(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && op.Err != nil {
		return op.Err.Error()
	}
	return ""
}

func tlsReason(err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			if invalid.Cert != nil {
				return "its certificate is not valid at this time (" + invalid.Cert.NotBefore.UTC().Format("2006-01-02") + " to " +
					invalid.Cert.NotAfter.UTC().Format("2006-01-02") + ")"
			}
			return "its certificate has expired"
		}
		return "its certificate is not fit for this"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another name"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is of an authority that this machine does not trust"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate cannot be verified"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "what answers there does not speak TLS"
	}
	if alert := remoteAlert(err); alert != "" {
		return alertReason(alert)
	}
	if text := reason(err); text != "" {
		return text
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it hung up during the handshake"
	}
	return "the handshake failed"
}

func alertReason(alert string) string {
	switch alert {
	case alertCertRequired:
		return "it wants a client certificate"
	case alertBadCert:
		return "it refused the client certificate"
	case alertNoName:
		return "it knows no such name"
	case alertNoProtocol:
		return "it speaks none of the protocols that were offered"
	}
	return "it refused the handshake (" + strings.TrimPrefix(alert, "tls: ") + ")"
}
