package vsock

import (
	"net"
	"testing"

	"github.com/mdlayher/vsock"
)

func TestOnlyTheHostIsAPeer(t *testing.T) {
	for name, c := range map[string]struct {
		addr net.Addr
		want bool
	}{
		"the host":               {&vsock.Addr{ContextID: vsock.Host, Port: 1024}, true},
		"a process in the guest": {&vsock.Addr{ContextID: vsock.Local, Port: 1024}, false},
		"another guest":          {&vsock.Addr{ContextID: 3, Port: 1024}, false},
		"the hypervisor":         {&vsock.Addr{ContextID: vsock.Hypervisor, Port: 1024}, false},
		"not AF_VSOCK":           {&net.UnixAddr{Name: "x"}, false},
	} {
		if got := fromPeer(c.addr, vsock.Host); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
