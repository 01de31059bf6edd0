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

	"golang.org/x/sys/unix"

	"capsem/core/guest/netcfg"
	"capsem/core/guest/nft"
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
		"udp 10.0.2.3:123", "udp 1.1.1.1:443",
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

// redirection checks that what would leave the guest goes to the agent's proxies, or is refused.
func redirection(context.Context, *System) (string, error) {
	if err := nft.Verify(); err != nil {
		return "", err //nolint:wrapcheck // says what is wrong
	}
	return "all TCP and all name lookups go to the host, the rest is refused", nil
}

// lookupTime is how long the host has to answer for a name.
const lookupTime = 3 * time.Second

// names checks that the host answers for names: one that cannot exist does not.
func names(ctx context.Context, _ *System) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	r := net.Resolver{PreferGo: true}
	_, err := r.LookupHost(ctx, "capsem-doctor.invalid.")
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return "a name that does not exist is answered as such", nil
	}
	return "", fmt.Errorf("a name that does not exist gave: %w", err)
}

// refusals checks that what is neither TCP nor a lookup is refused at once, not dropped.
func refusals(ctx context.Context, _ *System) (string, error) {
	d := net.Dialer{Timeout: answerTime}
	conn, err := d.DialContext(ctx, "udp", "1.1.1.1:443")
	if err != nil {
		return "", fmt.Errorf("try QUIC: %w", err)
	}
	defer conn.Close()
	err = conn.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		_, err = conn.Write([]byte("x"))
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return "", fmt.Errorf("a datagram was not refused: %w", err)
	}
	return "a datagram is refused at once", nil
}

// answers reports whether somebody behind an address says a word. The connection itself is taken by the agent's proxy.
func answers(ctx context.Context, network, address string) bool {
	d := net.Dialer{Timeout: answerTime}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(answerTime)) != nil {
		return false
	}
	if _, err := conn.Write([]byte("\n")); err != nil { // what no protocol begins with
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}
