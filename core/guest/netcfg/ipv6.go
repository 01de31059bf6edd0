//go:build linux

package netcfg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// settings6 is where the kernel keeps its IPv6 settings of each device.
const settings6 = "/proc/sys/net/ipv6/conf"

func hasIPv6() bool {
	_, err := os.Stat(settings6)
	return err == nil
}

// prepareIPv6 allows IPv6 on a device, and nothing that makes it talk by itself: no search for routers, no address of its own.
func prepareIPv6(device string) error {
	for _, s := range []struct{ name, value string }{
		{"addr_gen_mode", "1"}, {"accept_ra", "0"}, {"autoconf", "0"}, {"router_solicitations", "0"}, {"disable_ipv6", "0"},
	} {
		err := os.WriteFile(filepath.Join(settings6, device, s.name), []byte(s.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("prepare %s for IPv6: %w", device, err)
		}
	}
	return nil
}
