//go:build linux

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// originalDst is SO_ORIGINAL_DST of linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST, which is the same.
const originalDst = 80

// ErrDirect is a connection that was made to the proxy itself.
var ErrDirect = errors.New("the connection was made to the proxy itself")

// OriginalDestination returns where a redirected connection wanted to go.
func OriginalDestination(conn *net.TCPConn) (netip.AddrPort, error) {
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the address of a connection: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the original destination: %w", err)
	}
	level := unix.SOL_IP
	if local.Addr().Is6() {
		level = unix.SOL_IPV6
	}
	// The kernel gives a socket address of either family; what x/sys reads here begins with one of the longer kind.
	var info *unix.IPv6MTUInfo
	var sockErr error
	if err := raw.Control(func(fd uintptr) { info, sockErr = unix.GetsockoptIPv6MTUInfo(int(fd), level, originalDst) }); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the original destination: %w", err)
	}
	if errors.Is(sockErr, unix.ENOENT) || errors.Is(sockErr, unix.ENOPROTOOPT) {
		return netip.AddrPort{}, ErrDirect // the kernel knows of no redirection
	}
	if sockErr != nil {
		return netip.AddrPort{}, fmt.Errorf("read the original destination: %w", sockErr)
	}
	dest, err := address(info.Addr)
	if err == nil && dest == local {
		err = ErrDirect
	}
	return dest, err
}

// address reads struct sockaddr_in6, or the struct sockaddr_in that is in its place.
func address(s unix.RawSockaddrInet6) (netip.AddrPort, error) {
	port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, s.Port))
	switch s.Family {
	case unix.AF_INET:
		v4 := binary.NativeEndian.AppendUint32(nil, s.Flowinfo)
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(v4)), port), nil
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), port), nil
	}
	return netip.AddrPort{}, fmt.Errorf("read the original destination: an address of family %d", s.Family)
}
