package egress

import (
	"crypto/tls"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestConnectionsGoThroughTheProxy(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	up := serveAt(t, "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.leaf(0, "up.test")}})
	plain := serveAt(t, "127.0.0.1:0", nil)
	port := strconv.Itoa(int(up.port))
	names := map[string]string{"up.test:" + port: "127.0.0.1:" + port, "first.test:22": plain.listener.Addr().String()}
	for scheme, config := range map[string]*tls.Config{
		"http": nil, "https": {Certificates: []tls.Certificate{c.leaf(0, "127.0.0.1")}, NextProtos: []string{"h2", "http/1.1"}},
	} {
		addr, asked := connectProxy(t, config, basicAuth("us:er", "p@ss"), names)
		d := newDialer(t, Config{Resolver: &liar{}, CAFiles: []string{c.file}, Proxy: scheme + "://us%3Aer:p%40ss@" + addr})
		conn, err := d.DialTLS(t.Context(), "up.test", up.port, anything, nil)
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		if got := readAll(t, conn); got != "hello from 127.0.0.1\n" {
			t.Errorf("%s: %q", scheme, got)
		}
		first, err := d.Dial(t.Context(), "first.test", 22, anything)
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		if got := readAll(t, first); got != "hello from 127.0.0.1\n" {
			t.Errorf("%s: what comes with the answer: %q", scheme, got)
		}
		if want := []string{"CONNECT up.test:" + port, "CONNECT first.test:22"}; !slices.Equal(asked(), want) {
			t.Errorf("%s: the proxy was asked %q", scheme, asked())
		}
	}
}

func TestANameThatResolvesToARefusedAddressNeverReachesTheProxy(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	to := "127.0.0.1:" + strconv.Itoa(int(s.port))
	addr, asked := connectProxy(t, nil, "", map[string]string{"inner.test:80": to, "mixed.test:80": to, "127.0.0.1:80": to})
	d := newDialer(t, Config{Proxy: "http://" + addr, Resolver: &liar{names: map[string][][]string{
		"inner.test": {{"127.0.0.1"}}, "mixed.test": {{"93.184.216.34", "169.254.169.254"}},
	}}})
	for _, host := range []string{"inner.test", "mixed.test", "127.0.0.1"} {
		if _, err := d.Dial(t.Context(), host, 80, byPolicy(t, "**", "")); !errors.Is(err, errNotPermitted) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if len(asked()) > 0 || s.count() > 0 {
		t.Errorf("the proxy was asked %q", asked())
	}
}

func TestTheProxysOwnMachineIsLoopbackToo(t *testing.T) {
	t.Parallel()
	s := serveAt(t, "127.0.0.1:0", nil)
	to := "127.0.0.1:" + strconv.Itoa(int(s.port))
	addr, asked := connectProxy(t, nil, "", map[string]string{"localhost:80": to, "x.localhost:80": to, "unknown.test:80": to})
	d := newDialer(t, Config{Proxy: "http://" + addr, Resolver: &liar{}})
	for _, host := range []string{"localhost", "LOCALHOST.", "x.localhost"} {
		if _, err := d.Dial(t.Context(), host, 80, byPolicy(t, "**", "")); !errors.Is(err, errNotPermitted) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := d.Dial(t.Context(), "unknown.test", 80, byPolicy(t, "**", "")); err != nil {
		t.Errorf("a name that only the proxy knows: %v", err)
	}
	if want := []string{"CONNECT unknown.test:80"}; !slices.Equal(asked(), want) {
		t.Errorf("the proxy was asked %q", asked())
	}
}

func TestWhatTheProxyDoesWrongIsSaid(t *testing.T) {
	t.Parallel()
	greeter := serveAt(t, "127.0.0.1:0", nil)
	closed := serveAt(t, "127.0.0.1:0", nil)
	_ = closed.listener.Close()
	wants, _ := connectProxy(t, nil, basicAuth("a", "b"), nil)
	lacks, _ := connectProxy(t, nil, "", nil)
	other := newCA(t)
	strange, _ := connectProxy(t, &tls.Config{Certificates: []tls.Certificate{other.leaf(0, "127.0.0.1")}}, "", nil)
	for proxy, want := range map[string]string{
		"http://a:wrong@" + wants:                    "wants another user and password (407); look at network.proxy in user.toml",
		"http://" + lacks:                            "does not connect to up.test:443: it answered 502",
		"http://" + greeter.listener.Addr().String(): "does not answer as an HTTP proxy; look at network.proxy in user.toml",
		"http://" + closed.listener.Addr().String():  "cannot be used: nothing listens there (connection refused); look at network.proxy in user.toml",
		"https://" + strange:                         "cannot be used: its certificate is of an authority that this machine does not trust; look at network.proxy in user.toml",
	} {
		_, err := newDialer(t, Config{Resolver: &liar{}, Proxy: proxy}).Dial(t.Context(), "up.test", 443, anything)
		if got := line(err); !strings.HasSuffix(got, want) || strings.Contains(got, "wrong") {
			t.Errorf("%s: %q (%v), want %q", proxy, got, err, want)
		}
	}
}
