//go:build linux

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// conn is a rtnetlink socket.
type conn struct {
	fd  int
	seq uint32
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink: %w", err), unix.Close(fd))
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() { _ = unix.Close(c.fd) } // nothing is pending

// device brings an interface up.
func (c *conn) device(name string) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	return c.do("bring "+name+" up", linkUp(index))
}

// do sends a request and waits for the kernel's verdict.
func (c *conn) do(what string, m message) error {
	c.seq++
	out := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(m.body))
	binary.NativeEndian.PutUint32(out[0:], uint32(unix.SizeofNlMsghdr+len(m.body))) //nolint:gosec // short
	binary.NativeEndian.PutUint16(out[4:], m.kind)
	binary.NativeEndian.PutUint16(out[6:], m.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(out[8:], c.seq)
	if err := unix.Sendto(c.fd, append(out, m.body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if done, err := verdict(buf[:n], c.seq); done {
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		}
	}
}

// verdict looks for the answer to a request in what the kernel has sent.
func verdict(buf []byte, seq uint32) (done bool, err error) {
	for len(buf) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(buf)
		if size < unix.SizeofNlMsghdr || int64(size) > int64(len(buf)) {
			return true, unix.EBADMSG
		}
		body := buf[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR && binary.NativeEndian.Uint32(buf[8:]) == seq {
			if len(body) < 4 {
				return true, unix.EBADMSG
			}
			if code := -int32(binary.NativeEndian.Uint32(body)); code != 0 { //nolint:gosec // the kernel sends a negative number
				return true, syscall.Errno(code) //nolint:gosec // so this one is positive
			}
			return true, nil
		}
		buf = buf[min(int(size+3)&^3, len(buf)):]
	}
	return false, nil
}
