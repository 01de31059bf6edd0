package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"capsem/core/guest/nettest"
	"capsem/core/guest/nft"
)

func TestTheRulesAreSetAndReadBackAgainAndAgain(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		if err := nft.Verify(); err == nil {
			t.Error("rules that were never set are verified")
		}
		for range 3 {
			nettest.Up(t)
			if err := nft.Verify(); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").CombinedOutput(); err == nil {
			t.Logf("%s", out)
		}
	})
}

func TestChangedRulesAreSeenAndPutRight(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		nettest.Up(t)
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		table := &nftables.Table{Name: "capsem", Family: nftables.TableFamilyINet}
		chain := &nftables.Chain{Name: "redirect", Table: table}
		accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
		for name, spoil := range map[string]func(){
			"a rule more":   func() { c.InsertRule(&nftables.Rule{Table: table, Chain: chain, Exprs: accept}) },
			"no rules":      func() { c.FlushTable(table) },
			"no table":      func() { c.DelTable(table) },
			"another chain": func() { c.AddChain(&nftables.Chain{Name: "more", Table: table}) },
			"a rule changed": func() {
				rules, err := c.GetRules(table, chain)
				if err != nil {
					t.Fatal(err)
				}
				r := rules[len(rules)-1]
				r.Exprs[2] = &expr.Immediate{Register: 1, Data: []byte{0, 99}}
				r.Chain, r.Table = chain, table
				c.ReplaceRule(r)
			},
		} {
			spoil()
			if err := c.Flush(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := nft.Verify(); err == nil {
				t.Errorf("%s: nobody sees it", name)
			} else {
				t.Logf("%s: %v", name, err)
			}
			if err := nft.Apply(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := nft.Verify(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// soon is when a refusal must have come.
func soon() time.Time { return time.Now().Add(2 * time.Second) }

func TestDatagramsAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		nettest.Up(t)
		for _, dest := range []string{"1.1.1.1:443", "10.0.0.77:123", "[2606:4700::1111]:443", "[fd63:6170:7365::9]:9"} {
			var d net.Dialer
			c, err := d.DialContext(t.Context(), "udp", dest)
			if err != nil {
				t.Errorf("%s: no route: %v", dest, err)
				continue
			}
			_, werr := c.Write([]byte("hello"))
			_ = c.SetReadDeadline(soon())
			_, rerr := c.Read(make([]byte, 10))
			t.Logf("%s: write %v, read %v", dest, werr, rerr)
			if !errors.Is(rerr, unix.ECONNREFUSED) && !errors.Is(werr, unix.ECONNREFUSED) {
				t.Errorf("%s: not refused: write %v, read %v", dest, werr, rerr)
			}
			_ = c.Close()
		}
	})
}

func TestEverythingElseIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		nettest.Up(t)
		for _, c := range []struct {
			name, dest   string
			family, kind int
			protocol     int
			packet       []byte
		}{
			{"ping", "1.1.1.1", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}},
			{"ping of IPv6", "2606:4700::1111", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0, 0, 0, 0}},
			{"SCTP", "1.1.1.1", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_SCTP, make([]byte, 32)},
			{"GRE", "1.1.1.1", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_GRE, make([]byte, 32)},
		} {
			fd, err := unix.Socket(c.family, c.kind|unix.SOCK_CLOEXEC, c.protocol)
			if err != nil {
				t.Fatal(err)
			}
			var to unix.Sockaddr = &unix.SockaddrInet4{Addr: netip.MustParseAddr("1.1.1.1").As4()}
			if c.family == unix.AF_INET6 {
				to = &unix.SockaddrInet6{Addr: netip.MustParseAddr(c.dest).As16()}
			}
			if err := unix.Sendto(fd, c.packet, 0, to); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v", c.name, err)
			}
			_ = unix.Close(fd)
		}
	})
}

func TestLoopbackTrafficIsFree(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		nettest.Up(t)
		for _, address := range []string{"127.0.0.1:0", "127.0.0.53:53", "[::1]:0", "10.0.0.1:0", "[fd63:6170:7365::1]:0"} {
			var lc net.ListenConfig
			l, err := lc.Listen(t.Context(), "tcp", address)
			if err != nil {
				t.Fatalf("%s: %v", address, err)
			}
			var d net.Dialer
			c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Errorf("%s: %v", address, err)
				continue
			}
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if server.RemoteAddr().String() != c.LocalAddr().String() {
				t.Errorf("%s: somebody else answers", address)
			}
			p, err := lc.ListenPacket(t.Context(), "udp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			u, err := d.DialContext(t.Context(), "udp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.Write([]byte("hello")); err != nil {
				t.Errorf("%s: %v", address, err)
			}
			_ = p.SetReadDeadline(soon())
			if n, _, err := p.ReadFrom(make([]byte, 10)); n != 5 {
				t.Errorf("%s: %d, %v", address, n, err)
			}
		}
		out, err := exec.CommandContext(t.Context(), "ping", "-c1", "-W2", "127.0.0.1").CombinedOutput()
		if err != nil && !errors.Is(err, exec.ErrNotFound) && !strings.Contains(string(out), "not permitted") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// A connection whose proxy is not there is refused, not lost.
func TestConnectionsWithoutAProxyAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		nettest.Up(t)
		for _, dest := range []string{"100.64.0.5:443", "8.8.8.8:53", "[2606:4700::1111]:22"} {
			d := net.Dialer{Timeout: 5 * time.Second}
			if _, err := d.DialContext(t.Context(), "tcp", dest); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: %v", dest, err)
			}
		}
	})
}
