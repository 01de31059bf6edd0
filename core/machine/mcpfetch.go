package machine

import (
	"context"
	"crypto/x509"
	"io"
	"net"

	"capsem/core/mcp/fetch"
	"capsem/core/proto"
)

// wayOut is the VM's network for requests that are made in its name on the host.
type wayOut struct{ n *network }

// ServeDNS answers lookups as it does the guest's.
func (o wayOut) ServeDNS(ctx context.Context, rw io.ReadWriteCloser) error {
	return o.n.names.Serve(ctx, rw) //nolint:wrapcheck // says what it did
}

// ServeConn serves a connection as it does the guest's.
func (o wayOut) ServeConn(ctx context.Context, conn net.Conn, open proto.NetworkOpen) {
	o.n.proxy.Serve(ctx, conn, open)
}

// newFetcher makes requests for the built-in tools by the way of the guest's own, whose certificates are of the installation's CA.
func newFetcher(n *network) *fetch.Fetcher {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(n.certificate)
	return fetch.New(wayOut{n}, roots)
}
