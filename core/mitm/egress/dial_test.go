package egress

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
)

func TestOnlyPermittedAddressesAreDialled(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	for name, addrs := range map[string][]string{
		"loopback":                  {"127.0.0.1"},
		"loopback by v4 in v6":      {"::ffff:127.0.0.1"},
		"loopback by NAT64":         {"64:ff9b::7f00:1"},
		"loopback by 6to4":          {"2002:7f00:1::1"},
		"loopback v4-compatible":    {"::7f00:1"},
		"loopback v6":               {"::1"},
		"this host":                 {"0.0.0.0", "::"},
		"metadata":                  {"169.254.169.254"},
		"metadata by v4 in v6":      {"::ffff:169.254.169.254"},
		"metadata by NAT64":         {"64:ff9b::a9fe:a9fe"},
		"metadata v6":               {"fd00:ec2::254"},
		"metadata of another cloud": {"168.63.129.16"},
		"private":                   {"10.0.0.1", "172.16.0.1", "192.168.1.1"},
		"carrier-grade NAT":         {"100.64.0.1"},
		"multicast and broadcast":   {"224.0.0.1", "255.255.255.255", "ff02::1"},
		"with an interface":         {"fe80::1%lo"},
	} {
		d := newDialer(t, Config{Resolver: always("name.test", addrs...)})
		conn, err := d.Dial(t.Context(), "name.test", s.port, byPolicy(t, "name.test", ""))
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, errNotPermitted) && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
		for _, a := range addrs { // as a literal, too
			conn, err := d.Dial(t.Context(), a, s.port, byPolicy(t, "name.test", ""))
			if err == nil {
				_ = conn.Close()
			}
			if !errors.Is(err, errNotPermitted) && !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: literal %s: %v", name, a, err)
			}
		}
	}
	if n := s.count(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

func TestANameThatTurnsPrivateIsRefusedAtEachDial(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	d := newDialer(t, Config{Resolver: &liar{names: map[string][][]string{"rebind.test": {{"127.0.0.1"}, {"127.0.0.2"}}}}})
	permit := byPolicy(t, "rebind.test", `"127.0.0.1/32"`)
	conn, err := d.Dial(t.Context(), "rebind.test", s.port, permit)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, conn); got != "hello from 127.0.0.1\n" {
		t.Errorf("%q", got)
	}
	if _, err = d.Dial(t.Context(), "rebind.test", s.port, permit); !errors.Is(err, errNotPermitted) {
		t.Errorf("after it has turned: %v", err)
	}
}

// The permitted address is dialled and nobody is asked again: what the name means a moment later does not matter.
func TestANameIsResolvedOnce(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	l := &liar{names: map[string][][]string{"rebind.test": {{"127.0.0.1"}, {"10.0.0.1"}}}}
	conn, err := newDialer(t, Config{Resolver: l}).Dial(t.Context(), "rebind.test", s.port, byPolicy(t, "rebind.test", `"127.0.0.0/8"`))
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.RemoteAddr().String(); !strings.HasPrefix(got, "127.0.0.1:") || l.asked != 1 {
		t.Errorf("dialled %s after %d lookups", got, l.asked)
	}
	_ = conn.Close()
}

func TestRefusedAddressesOfANameAreLeftOut(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	var asked []string
	policy := byPolicy(t, "mixed.test", `"127.0.0.1/32"`)
	conn, err := newDialer(t, Config{Resolver: always("mixed.test", "127.0.0.2", "10.0.0.1", "::ffff:127.0.0.1")}).Dial(t.Context(), "mixed.test", s.port,
		func(ctx context.Context, addr netip.Addr) error {
			asked = append(asked, addr.String())
			return policy(ctx, addr)
		})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.RemoteAddr().String(); got != s.listener.Addr().String() {
		t.Errorf("dialled %s", got)
	}
	_ = conn.Close()
	if want := []string{"127.0.0.2", "10.0.0.1", "127.0.0.1"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}

func TestTheNextAddressIsTriedWhenOneFails(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.3:0", nil)
	conn, err := newDialer(t, Config{Resolver: always("two.test", "127.0.0.2", "127.0.0.3")}).Dial(t.Context(), "two.test", s.port, anything)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, conn); got != "hello from 127.0.0.3\n" {
		t.Errorf("%q", got)
	}
}

func TestAddressesTakeTurnsAndAreBounded(t *testing.T) {
	t.Parallel()
	var found, want []netip.Addr
	for i := range 20 {
		found = append(found, netip.MustParseAddr("2001:db8::"+strconv.Itoa(i)))
	}
	for i := range 20 {
		found = append(found, netip.MustParseAddr("::ffff:192.0.2."+strconv.Itoa(i)), netip.MustParseAddr("192.0.2."+strconv.Itoa(i)))
	}
	for i := range maxAddrs / 2 {
		want = append(want, netip.MustParseAddr("2001:db8::"+strconv.Itoa(i)), netip.MustParseAddr("192.0.2."+strconv.Itoa(i)))
	}
	if got := inTurn(found); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestFailuresAreOneLineThatSaysWhatFailed(t *testing.T) {
	t.Parallel()
	closed := serveAt(t, "127.0.0.1:0", nil)
	_ = closed.listener.Close()
	d := newDialer(t, Config{Resolver: always("there.test", "127.0.0.1")})
	for _, c := range []struct{ host, want string }{
		{"nowhere.test", "there is no host nowhere.test"},
		{"there.test", "cannot connect to there.test:" + strconv.Itoa(int(closed.port)) + ": nothing listens there (connection refused)"},
		{"127.1", `"127.1" port ` + strconv.Itoa(int(closed.port)) + " is nothing to connect to"},
		{"a b", `"a b" port ` + strconv.Itoa(int(closed.port)) + " is nothing to connect to"},
	} {
		_, err := d.Dial(t.Context(), c.host, closed.port, anything)
		if got := line(err); got != c.want {
			t.Errorf("%s: %q, want %q", c.host, got, c.want)
		}
	}
	if _, err := d.Dial(t.Context(), "there.test", 0, anything); !fault.Is(err, fault.Invalid) {
		t.Errorf("port 0: %v", err)
	}
}

func TestACallerThatGoesAwayEndsTheDial(t *testing.T) {
	t.Parallel()
	full := fullListener(t)
	d := newDialer(t, Config{Resolver: always("slow.test", "127.0.0.1")})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the dial is to have begun
		cancel()
	}()
	_, err := d.Dial(ctx, "slow.test", full, anything)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestASlowAddressDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	full := fullListener(t)
	s := serveAt(t, "127.0.0.4:"+strconv.Itoa(int(full)), nil)
	conn, err := newDialer(t, Config{Resolver: always("slow.test", "127.0.0.1", "127.0.0.4")}).Dial(t.Context(), "slow.test", s.port, anything)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, conn); got != "hello from 127.0.0.4\n" {
		t.Errorf("%q", got)
	}
}
