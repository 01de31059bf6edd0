package netcfg_test

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"capsem/core/guest/netcfg"
	"capsem/core/guest/nettest"
)

func TestTheDeviceHasItsAddressesAndLeadsEverywhere(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		// As a boot that leaves IPv6 to the loopback has it.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
			t.Fatal("guests have IPv6, and so must this machine: ", err)
		}
		nettest.StandIn(t)
		for range 3 {
			if err := netcfg.Up(); err != nil {
				t.Fatal(err)
			}
		}
		device, err := net.InterfaceByName(netcfg.Device)
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := device.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if want := []string{netcfg.Address, netcfg.Address6}; !slices.Equal(got, want) {
			t.Errorf("its addresses are %q", got)
		}
		for _, dest := range []string{"1.1.1.1:1", "[2606:4700::1111]:1"} {
			var d net.Dialer
			c, err := d.DialContext(t.Context(), "udp", dest)
			if err != nil {
				t.Errorf("%s: %v", dest, err)
				continue
			}
			from := netip.MustParseAddrPort(c.LocalAddr().String()).Addr()
			if from != netip.MustParsePrefix(netcfg.Address).Addr() && from != netip.MustParsePrefix(netcfg.Address6).Addr() {
				t.Errorf("%s is reached from %v", dest, from)
			}
			_ = c.Close()
		}
	})
}
