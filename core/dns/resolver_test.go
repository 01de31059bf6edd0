package dns

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestLookup(t *testing.T) {
	z := newZone(t,
		"both.test. 60 A 192.0.2.1", "both.test. 60 AAAA 2001:db8::1", "mapped.test. 60 AAAA ::ffff:10.0.0.1",
		"a.test. 60 CNAME b.test.", "b.test. 60 CNAME c.test.", "c.test. 60 A 192.0.2.3", "dangling.test. 60 CNAME gone.test.",
		"loop1.test. 60 CNAME loop2.test.", "loop2.test. 60 CNAME loop1.test.", "self.test. 60 CNAME self.test.", "text.test. 60 TXT hi")
	for i := range 60 {
		z.add(t, fmt.Sprintf("many.test. 60 A 192.0.2.%d", i+1), fmt.Sprintf("many.test. 60 AAAA 2001:db8::%d", i+1))
	}
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}})
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"both.test", "192.0.2.1 2001:db8::1", nil},
		{"BOTH.test.", "192.0.2.1 2001:db8::1", nil},
		{"mapped.test", "10.0.0.1", nil},
		{"a.test", "192.0.2.3", nil},
		{"10.1.2.3", "10.1.2.3", nil},
		{"gone.test", "", ErrNoName},
		{"dangling.test", "", ErrNoName},
		{"text.test", "", ErrNoAddress},
		{"loop1.test", "", errChain},
		{"self.test", "", errChain},
		{"localhost", "", ErrNoName},
		{"x.localhost", "", ErrNoName},
	} {
		addrs, err := r.Lookup(t.Context(), c.name)
		if got := strings.Trim(fmt.Sprint(addrs), "[]"); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
	if addrs, err := r.Lookup(t.Context(), "many.test"); err != nil || len(addrs) != maxAddrs {
		t.Errorf("%d addresses, %v", len(addrs), err)
	}
	if _, err := r.Lookup(t.Context(), "no name"); err == nil {
		t.Error("what is no name is looked up")
	}
}

func TestChainsThatTheServerDoesNotFinishAreFollowed(t *testing.T) {
	z := newZone(t)
	z.use(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		next := map[string]string{"a.test.": "a.test. 9 CNAME b.test.", "b.test.": "b.test. 9 CNAME C.test.", "c.test.": "c.test. 9 A 192.0.2.3"}
		text := next[strings.ToLower(req.Question[0].Name)]
		if text == "" { // an endless chain of ever new names
			text = req.Question[0].Name + " 9 CNAME x" + req.Question[0].Name
		}
		rr, _ := dns.NewRR(text)
		m.Answer = []dns.RR{rr}
		_ = w.WriteMsg(m)
	})
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}})
	if addrs, err := r.Lookup(t.Context(), "a.test"); err != nil || len(addrs) != 1 {
		t.Errorf("%v, %v", addrs, err)
	}
	if _, err := r.Lookup(t.Context(), "endless.test"); !errors.Is(err, errChain) {
		t.Errorf("an endless chain: %v", err)
	}
}

// evil answers a question with an address for a name.
func evil(req *dns.Msg, name string) *dns.Msg {
	m := new(dns.Msg).SetReply(req)
	rr, _ := dns.NewRR(name + " 60 A 6.6.6.6")
	m.Answer = []dns.RR{rr}
	return m
}

// lies are packets that are no answer to a question for www.test.
func lies() map[string]func(req *dns.Msg) []byte {
	packed := func(m *dns.Msg, change func([]byte) []byte) []byte {
		wire, _ := m.Pack()
		if change != nil {
			wire = change(wire)
		}
		return wire
	}
	return map[string]func(req *dns.Msg) []byte{
		"another id":      func(req *dns.Msg) []byte { m := evil(req, "www.test."); m.Id++; return packed(m, nil) },
		"a question back": func(req *dns.Msg) []byte { m := evil(req, "www.test."); m.Response = false; return packed(m, nil) },
		"another name": func(req *dns.Msg) []byte {
			m := evil(req, "www.test.")
			m.Question[0].Name = "other.test."
			return packed(m, nil)
		},
		"another type": func(req *dns.Msg) []byte {
			m := evil(req, "www.test.")
			m.Question[0].Qtype = 99
			return packed(m, nil)
		},
		"another class": func(req *dns.Msg) []byte {
			m := evil(req, "www.test.")
			m.Question[0].Qclass = 3
			return packed(m, nil)
		},
		"no question":    func(req *dns.Msg) []byte { m := evil(req, "www.test."); m.Question = nil; return packed(m, nil) },
		"another opcode": func(req *dns.Msg) []byte { m := evil(req, "www.test."); m.Opcode = 4; return packed(m, nil) },
		"cut": func(req *dns.Msg) []byte {
			return packed(evil(req, "www.test."), func(b []byte) []byte { return b[:len(b)-3] })
		},
		"looping pointers": func(req *dns.Msg) []byte {
			return packed(evil(req, "www.test."), func(b []byte) []byte {
				at := len(b) - len("\x03www\x04test\x00") - 14
				return append(append(b[:at:at], 0xc0, byte(at)), b[at+10:]...)
			})
		},
		"garbage": func(*dns.Msg) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") },
		"empty":   func(*dns.Msg) []byte { return nil },
	}
}

func TestLiesAreReadOver(t *testing.T) {
	for name, lie := range lies() {
		t.Run(name, func(t *testing.T) {
			z := newZone(t, "www.test. 60 A 192.0.2.1")
			z.use(func(w dns.ResponseWriter, req *dns.Msg) {
				_, _ = w.Write(lie(req.Copy()))
				_ = w.WriteMsg(z.answer(req))
			})
			r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, Timeout: 2 * time.Second})
			addrs, err := r.Lookup(t.Context(), "www.test")
			if err != nil || len(addrs) != 1 || addrs[0] != netip.MustParseAddr("192.0.2.1") {
				t.Fatalf("%v, %v", addrs, err)
			}
		})
	}
}

func TestLyingServers(t *testing.T) {
	t.Run("records of other names", func(t *testing.T) {
		z := newZone(t)
		z.use(func(w dns.ResponseWriter, req *dns.Msg) { _ = w.WriteMsg(evil(req, "other.test.")) })
		r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}})
		for _, name := range []string{"www.test", "other.test"} {
			if addrs, err := r.Lookup(t.Context(), name); name == "www.test" && !errors.Is(err, ErrNoAddress) {
				t.Fatalf("%s: %v, %v", name, addrs, err)
			}
		}
	})
	t.Run("a flood of guesses", func(t *testing.T) {
		z := newZone(t)
		z.use(func(w dns.ResponseWriter, req *dns.Msg) {
			for range 3 * maxJunk {
				m := evil(req, "www.test.")
				m.Id++
				_ = w.WriteMsg(m)
			}
		})
		r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, Tries: 1})
		if addrs, err := r.Lookup(t.Context(), "www.test"); err == nil {
			t.Fatal(addrs)
		}
	})
}

func TestLargeAnswersComeOverTCP(t *testing.T) {
	z := newZone(t)
	for i := range 200 {
		z.add(t, fmt.Sprintf("big.test. 60 TXT %d-%s", i, strings.Repeat("x", 100)))
	}
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}})
	f, _, err := r.find(t.Context(), key{name: "big.test", qtype: dns.TypeTXT})
	if err != nil || len(f.records) != 200 {
		t.Fatalf("%d records, %v", len(f.records), err)
	}
}

func TestServersAreTriedInTurn(t *testing.T) {
	bad, silent, good := newZone(t), newZone(t), newZone(t, "www.test. 60 A 192.0.2.1")
	bad.use(func(w dns.ResponseWriter, req *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(req, dns.RcodeServerFailure))
	})
	silent.use(func(dns.ResponseWriter, *dns.Msg) {})
	r := newTestResolver(t, ResolverConfig{Servers: []string{bad.addr, silent.addr, good.addr}})
	if addrs, err := r.Lookup(t.Context(), "www.test"); err != nil || len(addrs) != 1 {
		t.Fatalf("%v, %v", addrs, err)
	}
	before := bad.asked.Load() + silent.asked.Load()
	if _, err := r.Lookup(t.Context(), "other.test"); !errors.Is(err, ErrNoName) {
		t.Fatal(err)
	}
	if bad.asked.Load()+silent.asked.Load() != before {
		t.Error("servers that failed are asked before the one that works")
	}
}

func TestTheSecondTryIsWithoutEDNS(t *testing.T) {
	z := newZone(t, "www.test. 60 A 192.0.2.1")
	z.use(func(w dns.ResponseWriter, req *dns.Msg) {
		if req.IsEdns0() == nil {
			_ = w.WriteMsg(z.answer(req))
			return
		}
		_ = w.WriteMsg(new(dns.Msg).SetRcode(req, dns.RcodeFormatError))
	})
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}})
	if _, err := r.Lookup(t.Context(), "www.test"); err != nil {
		t.Fatal(err)
	}
}

func TestOneQuestionForManyWhoAsk(t *testing.T) {
	z := newZone(t, "www.test. 60 A 192.0.2.1")
	release := make(chan struct{})
	z.use(func(w dns.ResponseWriter, req *dns.Msg) { <-release; _ = w.WriteMsg(z.answer(req)) })
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, Timeout: 5 * time.Second})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := r.Lookup(ctx, "www.test"); left <- err }()
	z.waitAsked(t, 2)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := r.Lookup(t.Context(), "www.test"); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
	all.Wait()
	if n := z.asked.Load(); n != 2 {
		t.Fatalf("upstream was asked %d times, not once for each kind of address", n)
	}
}

func TestTTLs(t *testing.T) {
	z := newZone(t, "zero.test. 0 A 192.0.2.1", "long.test. 9999999 A 192.0.2.2", "mid.test. 100 A 192.0.2.3")
	now := time.Unix(1000, 0)
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, Now: func() time.Time { return now }})
	for name, ttl := range map[string]time.Duration{"zero": minTTL, "long": maxTTL, "mid": 100 * time.Second, "gone": defaultNegative} {
		start := now
		asked := func(at time.Duration) bool {
			now = start.Add(at)
			before := z.asked.Load()
			_, _ = r.Lookup(t.Context(), name+".test")
			return z.asked.Load() > before
		}
		if name == "mid" { // AAAA has no SOA, so what is known of it ends sooner
			ttl = defaultNegative
		}
		ttl = min(ttl, defaultNegative)
		if !asked(0) || asked(ttl-time.Millisecond) || !asked(ttl) {
			t.Errorf("%s is not kept for %s", name, ttl)
		}
	}
}

func TestFailuresAreKeptShortly(t *testing.T) {
	z := newZone(t)
	z.use(func(w dns.ResponseWriter, req *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(req, dns.RcodeServerFailure))
	})
	now := time.Unix(1000, 0)
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, Now: func() time.Time { return now }})
	for _, c := range []struct {
		wait  time.Duration
		asked bool
	}{{0, true}, {failureTTL / 2, false}, {failureTTL, true}} {
		now = now.Add(c.wait)
		before := z.asked.Load()
		if _, err := r.Lookup(t.Context(), "www.test"); err == nil {
			t.Fatal("no error")
		}
		if asked := z.asked.Load() > before; asked != c.asked {
			t.Errorf("after %s: asked is %v", c.wait, asked)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(3, 100*entryCost)
	now := time.Unix(0, 0)
	for i := range 10 {
		c.put(key{name: strconv.Itoa(i)}, finding{ttl: time.Minute}, now)
		c.get(key{name: "0"}, now)
	}
	if _, ok := c.get(key{name: "0"}, now); !ok || len(c.entries) != 3 {
		t.Fatalf("%d entries, the one in use is there: %v", len(c.entries), ok)
	}
	c = newCache(1000, 10*entryCost)
	for i := range 100 {
		c.put(key{name: strconv.Itoa(i)}, finding{ttl: time.Minute, addrs: make([]netip.Addr, 3)}, now)
	}
	c.put(key{name: "huge"}, finding{ttl: time.Minute, addrs: make([]netip.Addr, 1000)}, now)
	if c.bytes > 10*entryCost || len(c.entries) == 0 || c.order.Len() != len(c.entries) {
		t.Fatalf("%d bytes, %d entries", c.bytes, len(c.entries))
	}
	c.clear()
	if c.bytes != 0 || c.order.Len() != 0 {
		t.Fatal("not empty")
	}
}

func TestResolvConfIsReadAgain(t *testing.T) {
	a, b := newZone(t, "www.test. 60 A 192.0.2.1"), newZone(t, "www.test. 60 A 192.0.2.2")
	file := filepath.Join(t.TempDir(), "resolv.conf")
	now := time.Unix(1000, 0)
	w := &watched[[]transport]{path: file, now: func() time.Time { return now }, parse: func(text string) []transport {
		return []transport{plain{addr: strings.TrimSpace(text)}} // a resolv.conf cannot name a port
	}}
	r := newTestResolver(t, ResolverConfig{Servers: []string{a.addr}, Now: func() time.Time { return now }})
	r.up.list = w.get
	if _, err := r.Lookup(t.Context(), "www.test"); err == nil {
		t.Fatal("looked up without a file")
	}
	for i, z := range []*zone{a, b} {
		now = now.Add(time.Hour)
		if err := os.WriteFile(file, []byte(z.addr+strings.Repeat(" ", i)), 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * time.Second)
		addrs, err := r.Lookup(t.Context(), "www.test")
		if err != nil || addrs[0] != netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) {
			t.Fatalf("%v, %v", addrs, err)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf("# c\nsearch corp.test\nnameserver 192.0.2.1\nnameserver bad\n;x\nnameserver\tfe80::1%eth0\nnameserver ::1 # x\nnameserver 4.4.4.4\n")
	if fmt.Sprint(got) != "[192.0.2.1:53 [fe80::1%eth0]:53 [::1]:53]" {
		t.Fatal(got)
	}
}

func TestHostsFileOnlyWhenConfigured(t *testing.T) {
	z := newZone(t, "www.test. 60 A 192.0.2.1")
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("10.9.8.7 WWW.test alias.test # x\nbad line\nfe80::1%x y.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, want string }{{"", "192.0.2.1"}, {file, "10.9.8.7"}} {
		r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, HostsFile: c.file})
		if addrs, err := r.Lookup(t.Context(), "www.test"); err != nil || addrs[0].String() != c.want {
			t.Errorf("%q: %v, %v", c.file, addrs, err)
		}
	}
}

func TestServersMustBeSound(t *testing.T) {
	for _, server := range []string{"dns.test", "127.0.0.1:0", "http://127.0.0.1/dns-query", "https://", "https://u:p@h/", "ftp://x"} {
		if _, err := NewResolver(t.Context(), ResolverConfig{Servers: []string{server}}); err == nil {
			t.Errorf("%s is taken", server)
		}
	}
}

func TestDoH(t *testing.T) {
	z := newZone(t, "www.test. 60 A 192.0.2.1")
	mode := ""
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		m := new(dns.Msg)
		if err := m.Unpack(body); err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != dohType || m.Id != 0 || req.ProtoMajor != 2 {
			t.Errorf("%s %s: %v %v", req.Method, req.Proto, m, err)
		}
		wire, _ := z.answer(m).Pack()
		w.Header().Set("Content-Type", dohType)
		switch mode {
		case "type":
			w.Header().Set("Content-Type", "text/html")
		case "status":
			w.WriteHeader(http.StatusInternalServerError)
		case "redirect":
			http.Redirect(w, req, "/other?dns="+base64.RawURLEncoding.EncodeToString(body), http.StatusTemporaryRedirect)
			return
		case "huge":
			wire = make([]byte, 1<<20)
		case "id":
			wire[1] = 5
		}
		_, _ = w.Write(wire)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for _, m := range []string{"", "type", "status", "redirect", "huge", "id"} {
		mode = m
		r := newTestResolver(t, ResolverConfig{Servers: []string{server.URL + "/dns-query"}, Transport: server.Client().Transport, Timeout: 5 * time.Second})
		addrs, err := r.Lookup(t.Context(), "www.test")
		if (err == nil) != (m == "") || err == nil && addrs[0].String() != "192.0.2.1" {
			t.Errorf("%q: %v, %v", m, addrs, err)
		}
	}
	r := newTestResolver(t, ResolverConfig{Servers: []string{server.URL + "/dns-query"}})
	if _, err := r.Lookup(t.Context(), "www.test"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for is believed: %v", err)
	}
}

func TestCloseEndsLookups(t *testing.T) {
	z := newZone(t)
	z.use(func(dns.ResponseWriter, *dns.Msg) {})
	r, err := NewResolver(t.Context(), ResolverConfig{Servers: []string{z.addr}, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := r.Lookup(t.Context(), "www.test"); done <- err }()
	z.waitAsked(t, 2)
	r.Close()
	if err := <-done; err == nil {
		t.Fatal("no error")
	}
	if _, err := r.Lookup(t.Context(), "other.test"); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestAnswersOfOtherSendersDoNotArrive(t *testing.T) {
	// The question's port is learnt by the server, and another socket answers to it.
	z := newZone(t, "www.test. 60 A 192.0.2.1")
	var lc net.ListenConfig
	other, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	z.use(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		rr, _ := dns.NewRR("www.test. 60 A 6.6.6.6")
		m.Answer = []dns.RR{rr}
		wire, _ := m.Pack()
		_, _ = other.WriteTo(wire, w.RemoteAddr())
		_ = w.WriteMsg(z.answer(req))
	})
	r := newTestResolver(t, ResolverConfig{Servers: []string{z.addr}, Timeout: 2 * time.Second})
	if addrs, err := r.Lookup(t.Context(), "www.test"); err != nil || addrs[0].String() != "192.0.2.1" {
		t.Fatalf("%v, %v", addrs, err)
	}
}
