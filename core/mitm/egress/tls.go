package egress

import (
	"context"
	"crypto/tls"
	"net"
)

// DialTLS is Dial and a TLS handshake in which alpn is offered. The certificate must be one for host, of an authority that the system or
// the owner trusts.
func (d *Dialer) DialTLS(ctx context.Context, host string, port uint16, permit Permit, alpn []string) (*tls.Conn, error) {
	t, err := aim(host, port)
	if err != nil {
		return nil, err
	}
	roots, err := d.roots()
	if err != nil {
		return nil, err
	}
	conn, err := d.Dial(ctx, host, port, permit)
	if err != nil {
		return nil, err
	}
	secure, err := handshake(ctx, conn, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.host, RootCAs: roots, NextProtos: alpn, ClientSessionCache: d.sessions,
		GetClientCertificate: d.clientCert(t.host),
	})
	if err != nil {
		d.log.Debug("egress: no TLS", "host", t.host, "port", t.port, "err", err)
		return nil, explainTLS(t, err)
	}
	return secure, nil
}

// handshake makes a TLS client of conn, or closes it.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsTime)
	defer cancel()
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err //nolint:wrapcheck // the caller explains it
	}
	return secure, nil
}
