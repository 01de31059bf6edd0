package qemu

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"capsem/core/hypervisor"
	"capsem/core/link/vsock"
)

// vhostPath is the kernel's own device behind AF_VSOCK for guests.
const vhostPath = "/dev/vhost-vsock"

// dialEvery is how long to wait between attempts to reach a guest that does not listen yet.
const dialEvery = 10 * time.Millisecond

// vsockUsable reports whether this process may use the device.
func vsockUsable() bool {
	f, err := os.OpenFile(vhostPath, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// newCID picks the address of a guest at random from 2^30: QEMU refuses to start on the same one.
func newCID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return 1<<16 + binary.NativeEndian.Uint32(b[:])>>2
}

// dialVsock dials until the guest listens.
func (m *machine) dialVsock(ctx context.Context) (net.Conn, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.down:
			return nil, hypervisor.ErrGone
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to link: %w", context.Cause(ctx))
		}
		conn, err := vsock.Dial(ctx, m.cid)
		if err == nil {
			return conn, nil
		}
		timer.Reset(dialEvery)
	}
}
