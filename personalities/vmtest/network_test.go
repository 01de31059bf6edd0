//go:build vm

package vmtest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"capsem/core/api"
	"capsem/core/mitm/authority"
)

// world is what a guest can reach: a name server, a host that speaks everything over TLS, and one that speaks raw TCP, all on the loopback.
type world struct {
	dns, ca         string
	tls, clear, ssh string
	// next lets a stream of events go on.
	next chan struct{}
}

// newWorld starts it. Every name below test is the loopback.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{next: make(chan struct{}), ca: filepath.Join(t.TempDir(), "hosts.pem")}
	hosts, err := authority.LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.ca, hosts.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	srv.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return hosts.Leaf(h.ServerName) }}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	open := httptest.NewServer(http.HandlerFunc(w.serve))
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-here\r\n")
			_ = c.Close()
		}
	})
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(loopback)}
	serving.Go(func() { _ = names.ActivateAndServe() })
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		open.Close()
		_ = raw.Close()
		_ = names.Shutdown()
		serving.Wait()
	})
	w.dns = packets.LocalAddr().String()
	for to, addr := range map[*string]net.Addr{&w.tls: srv.Listener.Addr(), &w.clear: open.Listener.Addr(), &w.ssh: raw.Addr()} {
		_, *to, _ = net.SplitHostPort(addr.String())
	}
	return w
}

func loopback(rw dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 1)}}
	}
	_ = rw.WriteMsg(m)
}

// serve answers, sends events, or echoes the messages of a WebSocket.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/events":
		rw.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(rw, "data: %d\n\n", i)
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-w.next:
			case <-r.Context().Done():
			}
		}
	case "/next":
		w.next <- struct{}{}
	case "/socket":
		c, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		frame := make([]byte, 6+5)
		if _, err := io.ReadFull(buf, frame); err != nil {
			return
		}
		for i := range 5 {
			frame[6+i] ^= frame[2+i%4]
		}
		_, _ = c.Write(append([]byte{0x81, 5}, frame[6:]...))
		_, _ = io.Copy(io.Discard, buf)
	default:
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %s %d", r.Proto, r.Method, r.Host, len(body))
	}
}

const networkRules = `
[[rule]]
id = "open"
effect = "allow"
reason = "for the test"
hosts = ["open.test"]
ports = ["1-65535"]
cidr = ["127.0.0.0/8"]

[[rule]]
id = "wanted"
effect = "ask"
reason = "is it wanted?"
hosts = ["ask.test"]
ports = ["1-65535"]
cidr = ["127.0.0.0/8"]

[[rule]]
id = "ssh"
effect = "allow"
reason = "raw"
hosts = ["ssh.test"]
schemes = ["tcp"]
ports = ["%s"]
cidr = ["127.0.0.0/8"]
`

func TestTheGuestReachesWhatThePolicyAllowsAndNothingElse(t *testing.T) {
	w := newWorld(t)
	home := newHomeWithImage(t)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(home.UserConfig(), fmt.Sprintf("[network]\ndns = [%q]\nca_files = [%q]\n", w.dns, w.ca))
	write(home.UserPolicy(), fmt.Sprintf(networkRules, w.ssh))
	in := newInstall(t, home)
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	for _, part := range []struct {
		name string
		test func(*testing.T, *install, *world)
	}{
		{"requests", requests},
		{"events", events},
		{"WebSocket", socket},
		{"refusals", refused},
		{"question", question},
		{"raw TCP", rawTCP},
		{"record", recorded},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, &install{t, in.home, in.bin}, w) })
	}
}

func requests(_ *testing.T, in *install, w *world) {
	url := "https://open.test:" + w.tls
	in.want(0, "HTTP/2.0 GET open.test:"+w.tls+" 0", "", "exec", "vm", "curl -sS "+url)
	in.want(0, "HTTP/1.1 GET open.test:"+w.tls+" 0", "", "exec", "vm", "curl -sS --http1.1 "+url)
	in.want(0, "HTTP/1.1 GET open.test:"+w.clear+" 0", "", "exec", "vm", "curl -sS http://open.test:"+w.clear)
	in.want(0, "HTTP/2.0 POST open.test:"+w.tls+" 3000000", "", "exec", "vm", "head -c 3000000 /dev/zero | curl -sS --data-binary @- "+url)
	in.want(0, "HTTP/1.1 GET open.test:"+w.tls+" 0\n", "", "exec", "vm", "--", "python3", "-c",
		"import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())", url)
}

// events reads an event before the next is sent: the guest asks for each.
func events(_ *testing.T, in *install, w *world) {
	url := "https://open.test:" + w.tls
	in.want(0, "data: 0\ndata: 1\ndata: 2\n", "", "exec", "vm",
		fmt.Sprintf("curl -sSN %s/events | while read -r line; do if [ -n \"$line\" ]; then echo \"$line\"; curl -sS %s/next; fi; done", url, url))
}

const socketScript = `
import socket, ssl, sys
port = int(sys.argv[1])
c = ssl.create_default_context().wrap_socket(socket.create_connection(("open.test", port)), server_hostname="open.test")
c.sendall(b"GET /socket HTTP/1.1\r\nHost: open.test:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n" % port)
f = c.makefile("rb")
print(f.readline().decode().strip())
while f.readline().strip(): pass
c.sendall(bytes([0x81, 0x85, 1, 2, 3, 4]) + bytes(b ^ m for b, m in zip(b"hello", [1, 2, 3, 4, 1])))
print(f.read(7)[2:].decode())
`

func socket(_ *testing.T, in *install, w *world) {
	in.want(0, "HTTP/1.1 101 Switching Protocols\nhello\n", "", "exec", "vm", "--", "python3", "-c", socketScript, w.tls)
}

func refused(t *testing.T, in *install, w *world) {
	// A name that no rule opens does not exist; by its address there is an answer that says why.
	in.want(6, "", "Could not resolve host", "exec", "vm", "curl -sS https://shut.test/")
	for _, url := range []string{"http://203.0.113.7/x", "https://203.0.113.7/x", "http://169.254.169.254/", "http://127.1.2.3.4.example/"} {
		r := in.capsem("", "exec", "vm", "curl -sS -w ' %{http_code}' "+url)
		if strings.Contains(url, "example") {
			if r.code != 6 {
				t.Errorf("%s: %+v", url, r)
			}
			continue
		}
		if r.code != 0 || !strings.HasSuffix(r.stdout, " 403") || !strings.Contains(r.stdout, "capsem policy suggest vm") {
			t.Errorf("%s: %+v", url, r)
		}
	}
	r := in.capsem("", "exec", "vm", fmt.Sprintf("curl -sS -w ' %%{http_code}' -H 'Host: shut.test' https://open.test:%s/", w.tls))
	if !strings.HasSuffix(r.stdout, " 421") {
		t.Errorf("another host: %+v", r)
	}
}

func question(t *testing.T, in *install, w *world) {
	done := make(chan result, 1)
	go func() {
		done <- in.capsem("", "exec", "vm", "curl -sS -d 12345 https://ask.test:"+w.tls+"/wanted")
	}()
	id := ""
	in.until("the question", func() bool {
		var reply api.ApprovalsReply
		var q api.Question
		if json.Unmarshal([]byte(in.ok("approve", "--json")), &reply) != nil || len(reply.Pending) == 0 || json.Unmarshal(reply.Pending[0], &q) != nil {
			return false
		}
		id = q.ID
		return id != ""
	})
	select {
	case r := <-done:
		t.Fatalf("it was not held: %+v", r)
	default:
	}
	in.ok("approve", id, "once")
	if r := <-done; r.code != 0 || r.stdout != "HTTP/2.0 POST ask.test:"+w.tls+" 5" && r.stdout != "HTTP/1.1 POST ask.test:"+w.tls+" 5" {
		t.Errorf("%+v", r)
	}
}

func rawTCP(_ *testing.T, in *install, w *world) {
	const read = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(100))"
	in.want(0, "b'SSH-2.0-here\\r\\n'\n", "", "exec", "vm", "--", "python3", "-c", read, "ssh.test", w.ssh)
	in.want(1, "*", "ConnectionResetError", "exec", "vm", "--", "python3", "-c",
		strings.Replace(read, "print(", "c = (", 1)+"", "ssh.test", "1")
}

func recorded(t *testing.T, in *install, _ *world) {
	text := in.ok("inspect", "vm", "SELECT domain, conn_type, decision, matched_rule, count(*) FROM net_events GROUP BY 1, 2, 3, 4")
	for _, want := range []string{"open.test h2 allowed open", "open.test websocket allowed open", "ask.test", "ssh.test tcp allowed ssh", "203.0.113.7 https denied"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
