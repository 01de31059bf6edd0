//go:build linux

// Package netcfg sets up the guest's network: the loopback and dummy0, behind which there is nothing. It speaks rtnetlink
// itself, so that the image needs no tools for it.
package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Names and addresses of the guest's only interface but the loopback.
const (
	Device = "dummy0"
	// Address is dummy0's, with its network.
	Address = "10.0.0.1/24"
	// Address6 is its other one: a unique local address, so that IPv6 destinations have a route, too.
	Address6 = "fd63:6170:7365::1/64"
)

// Up brings up lo, and dummy0 (made when it is not there) with its addresses and the default routes. A kernel without IPv6 gets
// none of that.
func Up() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.device("lo"); err != nil {
		return err
	}
	if _, err := indexOf(Device); err != nil {
		if err := c.do("make "+Device, makeDummy(Device)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	addresses := []string{Address}
	if hasIPv6() {
		if err := prepareIPv6(Device); err != nil {
			return err
		}
		addresses = append(addresses, Address6)
	}
	if err := c.device(Device); err != nil {
		return err
	}
	index, err := indexOf(Device)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if err := c.reach(index, address); err != nil {
			return err
		}
	}
	return nil
}

// reach gives the device an address and makes it the way to everywhere.
func (c *conn) reach(index uint32, address string) error {
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return fmt.Errorf("parse address: %w", err)
	}
	if err := c.do("give "+Device+" "+address, addAddress(index, prefix)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := c.do("add the default route by "+address, addDefault(index, prefix.Addr())); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func indexOf(name string) (uint32, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	return ifr.Uint32(), nil
}

// message is one rtnetlink request without its header.
type message struct {
	kind  uint16
	flags uint16
	body  []byte
}

// attr appends an attribute, padded to four bytes.
func (m *message) attr(kind uint16, data []byte) {
	m.body = append(m.body, attr(kind, data)...)
}

func attr(kind uint16, data []byte) []byte {
	b := make([]byte, 4, 4+len(data)+3)
	binary.NativeEndian.PutUint16(b[0:], uint16(4+len(data))) //nolint:gosec // short, fixed attributes
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// linkUp is struct ifinfomsg that sets IFF_UP.
func linkUp(index uint32) message {
	m := message{kind: unix.RTM_NEWLINK, body: make([]byte, unix.SizeofIfInfomsg)}
	binary.NativeEndian.PutUint32(m.body[4:], index)
	binary.NativeEndian.PutUint32(m.body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(m.body[12:], unix.IFF_UP)
	return m
}

func makeDummy(name string) message {
	m := message{kind: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: make([]byte, unix.SizeofIfInfomsg)}
	m.attr(unix.IFLA_IFNAME, append([]byte(name), 0))
	m.attr(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, []byte("dummy")))
	return m
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addAddress is struct ifaddrmsg with the address. Nobody else can have it: looking for a duplicate would only delay its use.
func addAddress(index uint32, p netip.Prefix) message {
	m := message{kind: unix.RTM_NEWADDR, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: make([]byte, unix.SizeofIfAddrmsg)}
	m.body[0], m.body[1], m.body[2] = family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD //nolint:gosec // at most 128
	binary.NativeEndian.PutUint32(m.body[4:], index)
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return m
}

// addDefault is struct rtmsg of a default route through a device, for the family of an address.
func addDefault(index uint32, of netip.Addr) message {
	m := message{kind: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: make([]byte, unix.SizeofRtMsg)}
	m.body[0], m.body[4] = family(of), unix.RT_TABLE_MAIN
	m.body[5], m.body[6], m.body[7] = unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST
	m.attr(unix.RTA_OIF, u32(index))
	return m
}
