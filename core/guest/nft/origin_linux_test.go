package nft

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEveryAddressOfTheKernelIsRead(t *testing.T) {
	t.Parallel()
	for want, raw := range map[string]unix.RawSockaddrInet6{
		"1.2.3.4:443":   {Family: unix.AF_INET, Port: 0xbb01, Flowinfo: 0x04030201},
		"[fd00::1]:443": {Family: unix.AF_INET6, Port: 0xbb01, Addr: netip.MustParseAddr("fd00::1").As16()},
		"1.2.3.4:80":    {Family: unix.AF_INET6, Port: 0x5000, Addr: netip.MustParseAddr("::ffff:1.2.3.4").As16()},
		"":              {Family: unix.AF_UNIX},
	} {
		got, err := address(raw)
		if (err != nil) != (want == "") || (err == nil && got.String() != want) {
			t.Errorf("%s: %v, %v", want, got, err)
		}
	}
}
