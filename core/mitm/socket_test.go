package mitm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"capsem/core/ledger"
	"capsem/core/mitm/flow"
	"capsem/core/mitm/ws"
)

// frameOf is a WebSocket frame with a short payload.
func frameOf(op ws.Opcode, masked bool, text string) []byte {
	out := []byte{0x80 | byte(op), byte(len(text))}
	if len(text) > 125 {
		out[1] = 126
		out = binary.BigEndian.AppendUint16(out, uint16(len(text)))
	}
	if !masked {
		return append(out, text...)
	}
	out[1] |= 0x80
	mask := []byte{1, 2, 3, 4}
	out = append(out, mask...)
	for i := range len(text) {
		out = append(out, text[i]^mask[i&3])
	}
	return out
}

// echoes is a host that answers each frame with the same text.
func echoes(t *testing.T, offered *string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*offered = r.Header.Get("Sec-Websocket-Extensions")
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		_ = rw.Flush()
		for {
			text, err := readFrame(rw.Reader)
			if err != nil {
				return
			}
			if _, err := c.Write(frameOf(ws.Text, false, "re: "+text)); err != nil {
				return
			}
		}
	}
}

func readFrame(r *bufio.Reader) (string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	n := int(head[1] & 0x7f)
	if n == 126 {
		long := make([]byte, 2)
		if _, err := io.ReadFull(r, long); err != nil {
			return "", err
		}
		n = int(binary.BigEndian.Uint16(long))
	}
	mask := make([]byte, 4)
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask); err != nil {
			return "", err
		}
	}
	text := make([]byte, n)
	_, err := io.ReadFull(r, text)
	for i := range text {
		text[i] ^= mask[i&3]
	}
	return string(text), err
}

// watcher is a modifier that looks at messages.
type watcher struct {
	mu   sync.Mutex
	seen []string
}

func (w *watcher) ModifyRequest(req *http.Request) error {
	ws.Inspect(flow.From(req.Context()), 10, func(m ws.Message) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, fmt.Sprintf("%v %d %s", m.FromGuest, m.Size, m.Data))
		if strings.HasPrefix(string(m.Data), "forbidden") {
			return errModifier
		}
		return nil
	})
	return nil
}

// dialSocket makes a WebSocket connection over TLS.
func (g *rig) dialSocket(hostport string) (net.Conn, *bufio.Reader, *http.Response) {
	g.t.Helper()
	host, _, _ := net.SplitHostPort(hostport)
	tc, err := g.secure(hostport, host, "http/1.1")
	if err != nil {
		g.t.Fatal(err)
	}
	fmt.Fprintf(tc, "GET /chat HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", hostport)
	r := bufio.NewReader(tc)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return tc, r, res
}

func TestMessagesOfAWebSocketPassAndAreSeen(t *testing.T) {
	w := &watcher{}
	g := newRig(t, rules, func(c *Config) { c.Modifiers = []any{w} })
	offered := "none"
	port := g.upstream(false, echoes(t, &offered))
	c, r, res := g.dialSocket("a.open.test:" + port)
	if res.StatusCode != http.StatusSwitchingProtocols || offered != "" {
		t.Fatalf("%s, %q was offered", res.Status, offered)
	}
	long := strings.Repeat("words ", 200)
	for _, text := range []string{"one", "two", long} {
		if _, err := c.Write(frameOf(ws.Text, true, text)); err != nil {
			t.Fatal(err)
		}
		if got, err := readFrame(r); err != nil || got != "re: "+text {
			t.Fatalf("%q %v", got, err)
		}
	}
	_ = c.Close()
	row := g.rows.one(t, "socket", func(e ledger.NetEvent) bool { return e.Type == "websocket" })
	if row.Decision != "allowed" || row.Status != 101 || row.Sent != 9+9+1208 || row.Received < 1000 {
		t.Errorf("%+v", row)
	}
	want := "[true 3 one false 7 re: one true 3 two false 7 re: two true 1200 words word false 1204 re: words ]"
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.seen) != want {
		t.Errorf("%v", w.seen)
	}
}

func TestAWebSocketEndsAtABadFrameARefusedMessageAndANewPolicy(t *testing.T) {
	for name, act := range map[string]func(g *rig, c net.Conn){
		"unmasked":        func(_ *rig, c net.Conn) { _, _ = c.Write(frameOf(ws.Text, false, "x")) },
		"reserved bit":    func(_ *rig, c net.Conn) { _, _ = c.Write([]byte{0xc1, 0x80, 0, 0, 0, 0}) },
		"opcode":          func(_ *rig, c net.Conn) { _, _ = c.Write(frameOf(3, true, "x")) },
		"nested":          func(_ *rig, c net.Conn) { _, _ = c.Write([]byte{1, 0x80, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0}) },
		"refused message": func(_ *rig, c net.Conn) { _, _ = c.Write(frameOf(ws.Text, true, "forbidden")) },
		"new policy":      func(g *rig, _ net.Conn) { g.reload("") },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rules, func(c *Config) { c.Modifiers = []any{&watcher{}} })
			offered := ""
			c, r, res := g.dialSocket("a.open.test:" + g.upstream(false, echoes(t, &offered)))
			if res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(res.Status)
			}
			act(g, c)
			if got, err := readFrame(r); err == nil {
				t.Errorf("it goes on: %q", got)
			}
			row := g.rows.one(t, "socket", func(e ledger.NetEvent) bool { return e.Type == "websocket" })
			if row.Error == "" || row.Decision == "allowed" {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestARefusedWebSocketIs403(t *testing.T) {
	g := newRig(t, rules)
	_, _, res := g.dialSocket("shut.test:443")
	if res.StatusCode != http.StatusForbidden {
		t.Error(res.Status)
	}
	row := g.rows.one(t, "denied", func(e ledger.NetEvent) bool { return e.Type == "websocket" })
	if row.Decision != "denied" || row.Path != "/chat" {
		t.Errorf("%+v", row)
	}
}

func TestNoOtherProtocolIsChangedTo(t *testing.T) {
	g := newRig(t, rules)
	var got http.Header
	port := g.plain(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		if r.URL.Path == "/force" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nraw")
		}
	})
	for path, want := range map[string]string{"/": "200", "/force": "502"} {
		text := g.exchangeRaw("a.open.test:"+port, "GET "+path+" HTTP/1.1\r\nHost: a.open.test:"+port+
			"\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		if !strings.HasPrefix(text, "HTTP/1.1 "+want) || strings.Contains(text, "raw") {
			t.Errorf("%s: %q", path, text)
		}
		if got.Get("Upgrade") != "" || got.Get("Http2-Settings") != "" {
			t.Errorf("the host saw %v", got)
		}
	}
}
