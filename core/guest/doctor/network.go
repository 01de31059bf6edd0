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

// answerTime is how long an outside address has to answer.
const answerTime = 500 * time.Millisecond

// airGap tries to reach well-known public addresses by number, over TCP and UDP. None may answer.
func airGap(ctx context.Context, _ *System) (string, error) {
	targets := []string{
		"tcp 1.1.1.1:443", "tcp 8.8.8.8:53", "tcp 10.0.2.2:80", "tcp 169.254.169.254:80", "tcp [2606:4700:4700::1111]:443",
		"udp 8.8.8.8:53", "udp 10.0.2.3:53",
	}
	results := make(chan error, len(targets))
	for _, target := range targets {
		go func() {
			network, address, _ := strings.Cut(target, " ")
			if answers(ctx, network, address) {
				results <- fmt.Errorf("%s answers", target)
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

// answers reports whether an address takes a connection or, over UDP, answers a question for the name servers of the root.
func answers(ctx context.Context, network, address string) bool {
	d := net.Dialer{Timeout: answerTime}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if network != "udp" {
		return true
	}
	question := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01")
	if conn.SetDeadline(time.Now().Add(answerTime)) != nil {
		return false
	}
	if _, err := conn.Write(question); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 512))
	return err == nil
}
