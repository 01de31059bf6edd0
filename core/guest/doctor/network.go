//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"capsem/core/guest/netcfg"
)

// networkCards checks that the kernel has no network device but the loopback and the dummy.
func networkCards(_ context.Context, s *System) (string, error) {
	entries, err := os.ReadDir(s.sys("class/net"))
	if err != nil {
		return "", fmt.Errorf("list network devices: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{netcfg.Device, "lo"}) {
		return "", fmt.Errorf("the devices are %s, not just %s and lo", strings.Join(names, ", "), netcfg.Device)
	}
	return "only lo and " + netcfg.Device, nil
}

// routes checks that every route ends in the dummy.
func routes(_ context.Context, s *System) (string, error) {
	text, err := os.ReadFile(s.proc("net/route"))
	if err != nil {
		return "", fmt.Errorf("read routes: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[0] == "Iface" {
			continue
		}
		if n++; fields[0] != netcfg.Device {
			return "", fmt.Errorf("a route leads to %s", fields[0])
		}
	}
	if n == 0 {
		return "", errors.New("there is no route at all; the default route through " + netcfg.Device + " is missing")
	}
	return fmt.Sprintf("all %d lead to %s", n, netcfg.Device), nil
}

// airGap tries to reach well-known public addresses by number. None may answer.
func airGap(ctx context.Context, _ *System) (string, error) {
	targets := []string{"1.1.1.1:443", "8.8.8.8:53", "10.0.2.2:80", "169.254.169.254:80", "[2606:4700:4700::1111]:443"}
	results := make(chan error, len(targets))
	for _, target := range targets {
		go func() {
			d := net.Dialer{Timeout: 500 * time.Millisecond}
			conn, err := d.DialContext(ctx, "tcp", target)
			if err == nil {
				err = conn.Close()
				results <- errors.Join(fmt.Errorf("%s answers", target), err)
				return
			}
			results <- nil
		}()
	}
	var errs error
	for range targets {
		errs = errors.Join(errs, <-results)
	}
	return fmt.Sprintf("none of %d outside addresses answers", len(targets)), errs
}
