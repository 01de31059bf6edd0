//go:build linux

// Package nettest runs tests in a network namespace of their own, where they can set up the guest's network as its boot does.
package nettest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/guest/netcfg"
	"capsem/core/guest/nft"
)

// inside names the test that a process was started for.
const inside = "CAPSEM_TEST_NETNS"

// Isolated runs body in a process of its own, in a new network namespace. It needs root.
func Isolated(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		body(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.count=1", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, os.ErrPermission):
		t.Skipf("this machine gives no network namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("the test did not run\n%s", out)
	}
	t.Logf("%s", out)
}

// Up sets up the network of the namespace as the boot of a guest does.
func Up(t *testing.T) {
	t.Helper()
	StandIn(t)
	if err := netcfg.Up(); err != nil {
		t.Fatal(err)
	}
	if err := nft.Apply(); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skipf("the kernel of this machine lacks a part of nftables (nf_tables, nft_chain_nat, nft_redir, nft_reject_inet): %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// StandIn makes a device that is named like the guest's where the kernel has no dummy devices.
func StandIn(t *testing.T) {
	t.Helper()
	if _, err := net.InterfaceByName(netcfg.Device); err == nil {
		return
	}
	out, err := exec.CommandContext(t.Context(), "ip", "link", "add", netcfg.Device, "type", "dummy").CombinedOutput()
	if err == nil {
		return
	}
	t.Logf("no dummy device here, a veth takes its place: %s", out)
	for _, args := range [][]string{
		{"link", "add", netcfg.Device, "type", "veth", "peer", "name", "nowhere"},
		{"link", "set", "nowhere", "up"},
	} {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Skipf("this machine has neither dummy nor veth devices: %v: %s", err, out)
		}
	}
}
