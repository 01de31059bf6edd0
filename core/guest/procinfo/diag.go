//go:build linux

package procinfo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sockDiagByFamily is SOCK_DIAG_BY_FAMILY of linux/sock_diag.h.
	sockDiagByFamily = 20
	// requestSize and answerSize are those of struct inet_diag_req_v2 and struct inet_diag_msg.
	requestSize, answerSize = 56, 72
	// maxAnswers bounds the datagrams that one question may be answered by.
	maxAnswers = 1024
	// noCookie says that the socket may be any.
	noCookie = 0xffffffff
)

// socket is what the kernel says of one. Zero inode: there is none, or nobody has it open.
type socket struct {
	local      netip.AddrPort
	uid, inode uint32
}

// diag asks the kernel about sockets. The zero diag opens its netlink socket when it is first asked.
type diag struct {
	mu   sync.Mutex
	fd   int
	open bool
	seq  uint32
	buf  []byte
}

func (d *diag) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hangUp()
}

func (d *diag) hangUp() error {
	if !d.open {
		return nil
	}
	d.open = false
	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("close socket diagnosis: %w", err)
	}
	return nil
}

// find returns the socket that has exactly these ends, or the one that would receive what comes from remote.
func (d *diag) find(protocol uint8, local, remote netip.AddrPort) socket {
	from, to := local, remote
	if protocol == unix.IPPROTO_UDP {
		from, to = remote, local // for datagrams the kernel takes the packet's view, not the socket's
	}
	var found socket
	d.ask(request(protocol, from, to), 0, func(s socket) bool { found = s; return true })
	return found
}

// search returns a socket that is bound to local, or to every address with its port, whatever it is connected to.
func (d *diag) search(protocol uint8, local netip.AddrPort) socket {
	var found socket
	families := []netip.Addr{netip.IPv6Unspecified()} // these sockets also speak IPv4
	if local.Addr().Unmap().Is4() {
		families = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, any := range families {
		r := request(protocol, netip.AddrPortFrom(any, local.Port()), netip.AddrPortFrom(any, 0))
		d.ask(r, unix.NLM_F_DUMP, func(s socket) bool {
			at := s.local.Addr().Unmap()
			if s.inode != 0 && s.local.Port() == local.Port() && (at == local.Addr().Unmap() || at.IsUnspecified()) {
				found = s
			}
			return found.inode != 0 && !found.local.Addr().IsUnspecified()
		})
		if found.inode != 0 {
			break
		}
	}
	return found
}

// request is struct inet_diag_req_v2.
func request(protocol uint8, src, dst netip.AddrPort) []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = unix.AF_INET, protocol
	from, to := src.Addr().Unmap(), dst.Addr().Unmap()
	if from.Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // in every state
	binary.BigEndian.PutUint16(b[8:], src.Port())
	binary.BigEndian.PutUint16(b[10:], dst.Port())
	copy(b[12:28], from.AsSlice())
	copy(b[28:44], to.AsSlice())
	binary.NativeEndian.PutUint32(b[48:], noCookie)
	binary.NativeEndian.PutUint32(b[52:], noCookie)
	return b
}

// ask sends a request and shows every socket of the answer to each, until that has had enough.
func (d *diag) ask(body []byte, flags uint16, each func(socket) (enough bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open && d.dial() != nil {
		return
	}
	d.seq++
	out := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+requestSize)
	binary.NativeEndian.PutUint32(out[0:], uint32(unix.SizeofNlMsghdr+len(body))) //nolint:gosec // short
	binary.NativeEndian.PutUint16(out[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(out[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(out[8:], d.seq)
	if err := unix.Sendto(d.fd, append(out, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = d.hangUp()
		return
	}
	for range maxAnswers {
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break
		}
		if answer(d.buf[:n], d.seq, flags&unix.NLM_F_DUMP != 0, &each) {
			return
		}
	}
	_ = d.hangUp() // what still comes would be taken for the next answer
}

func (d *diag) dial() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("open socket diagnosis: %w", err)
	}
	tv := unix.NsecToTimeval(int64(patience / time.Nanosecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return errors.Join(fmt.Errorf("open socket diagnosis: %w", err), unix.Close(fd))
	}
	d.fd, d.open = fd, true
	if d.buf == nil {
		d.buf = make([]byte, 32<<10)
	}
	return nil
}

// answer reads one datagram of the kernel's; done says that no other follows.
func answer(buf []byte, seq uint32, many bool, each *func(socket) bool) (done bool) {
	for len(buf) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(buf)
		if size < unix.SizeofNlMsghdr || int64(size) > int64(len(buf)) {
			return false
		}
		body := buf[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint32(buf[8:]) == seq {
			switch binary.NativeEndian.Uint16(buf[4:]) {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				return true
			case sockDiagByFamily:
				if s, ok := parse(body); ok && *each != nil && (*each)(s) {
					*each = nil // the rest is only read
				}
				if !many {
					return true
				}
			}
		}
		buf = buf[min(int(size+3)&^3, len(buf)):]
	}
	return false
}

// parse reads struct inet_diag_msg.
func parse(body []byte) (socket, bool) {
	if len(body) < answerSize {
		return socket{}, false
	}
	var local netip.Addr
	switch body[0] {
	case unix.AF_INET:
		local = netip.AddrFrom4([4]byte(body[8:12]))
	case unix.AF_INET6:
		local = netip.AddrFrom16([16]byte(body[8:24]))
	default:
		return socket{}, false
	}
	return socket{
		local: netip.AddrPortFrom(local, binary.BigEndian.Uint16(body[4:])),
		uid:   binary.NativeEndian.Uint32(body[64:]), inode: binary.NativeEndian.Uint32(body[68:]),
	}, true
}
