package mitm

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"capsem/core/ledger"
)

func TestWhatTwoServersReadDifferentlyGoesNowhere(t *testing.T) {
	const head = "POST /a HTTP/1.1\r\nHost: a.open.test\r\n"
	const second = "GET /smuggled HTTP/1.1\r\nHost: a.open.test\r\n\r\n"
	for name, text := range map[string]string{
		"both lengths":             head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
		"both, chunked first":      head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + second,
		"two lengths":              head + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + second,
		"two equal lengths":        head + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + second,
		"a list of lengths":        head + "Content-Length: 0, 44\r\n\r\n" + second,
		"signed length":            head + "Content-Length: +0\r\n\r\n" + second,
		"space before the colon":   head + "Content-Length : 44\r\n\r\n" + second,
		"folded header":            head + "X: y\r\n Content-Length: 44\r\n\r\n" + second,
		"folded encoding":          head + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + second,
		"obfuscated encoding":      head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second,
		"two encodings":            head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + second,
		"encoding in a list":       head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + second,
		"bare CR in a header":      head + "X: y\rContent-Length: 44\r\n\r\n" + second,
		"bare LF in the head":      head + "X: y\nContent-Length: 44\r\n\r\n" + second,
		"NUL in a header":          head + "X: y\x00z\r\n\r\n" + second,
		"chunk size with a sign":   head + "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + second,
		"chunk size with 0x":       head + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + second,
		"chunk without its CRLF":   head + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + second,
		"chunk size ended by LF":   head + "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n" + second,
		"chunked in HTTP/1.0":      "POST /a HTTP/1.0\r\nHost: a.open.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
		"two hosts":                "GET /a HTTP/1.1\r\nHost: a.open.test\r\nHost: shut.test\r\n\r\n" + second,
		"length in the trailer":    head + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 44\r\n\r\n" + second,
		"a head without an end":    "GET /a HTTP/1.1\r\nHost: a.open.test\r\nX: " + strings.Repeat("x", 300<<10),
		"headers without an end":   "GET /a HTTP/1.1\r\nHost: a.open.test\r\n" + strings.Repeat("X: y\r\n", 5000),
		"a tab for the colon":      head + "X\t: y\r\n\r\n" + second,
		"no version":               "GET /a\r\n\r\n" + second,
		"HTTP/2 in a request line": "GET /a HTTP/2.0\r\nHost: a.open.test\r\n\r\n" + second,
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rules)
			var reached atomic.Int32
			port := g.plain(func(_ http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err == nil {
					reached.Add(1)
				}
			})
			got := g.exchangeRaw("a.open.test:"+port, text)
			if reached.Load() > 0 || strings.Contains(got, " 200 ") {
				t.Errorf("the host got a request; the guest %q", got)
			}
			row := g.rows.one(t, "refused", func(e ledger.NetEvent) bool { return e.Decision == "denied" })
			if row.Domain != "a.open.test" || row.Rule == "open" {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestASlowHeadEndsInTime(t *testing.T) {
	g := newRig(t, rules, func(c *Config) { c.Limits.FirstBytes, c.Limits.Head = 200*time.Millisecond, 200*time.Millisecond })
	port := g.plain(func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	for name, first := range map[string]string{
		"nothing": "", "half a word": "GE", "half a head": "GET / HTTP/1.1\r\nHost: a.o", "half a hello": "\x16\x03\x01\x02\x00\x01", "half a preface": "PRI * HT",
	} {
		c, err := g.connect(t.Context(), "a.open.test:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, first)
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", name)
		}
		_ = c.Close()
	}
}

// framer is an HTTP/2 connection over TLS whose frames a test makes itself.
func (g *rig) framer(hostport string) (*http2.Framer, *tls.Conn) {
	g.t.Helper()
	host, _, _ := net.SplitHostPort(hostport)
	tc, err := g.secure(hostport, host, "h2")
	if err != nil {
		g.t.Fatal(err)
	}
	_, _ = io.WriteString(tc, preface)
	f := http2.NewFramer(tc, bufio.NewReader(tc))
	_ = f.WriteSettings()
	return f, tc
}

func heads(authority string, more ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	all := append([]string{":method", "GET", ":scheme", "https", ":authority", authority, ":path", "/"}, more...)
	for i := 0; i < len(all); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	return b.Bytes()
}

// outcome reads frames until the connection ends, and says how.
func outcome(f *http2.Framer) string {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "ended"
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			return "goaway " + frame.ErrCode.String()
		case *http2.RSTStreamFrame:
			return "reset " + frame.ErrCode.String()
		}
	}
}

// floods are what a client of HTTP/2 can do to take more than its part.
var floods = map[string]func(f *http2.Framer, authority string) error{
	"rapid reset": func(f *http2.Framer, authority string) error {
		block := heads(authority)
		for id := uint32(1); id < 40_000; id += 2 {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
			if err == nil {
				err = f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			if err != nil {
				return err
			}
		}
		return nil
	},
	"continuation": func(f *http2.Framer, authority string) error {
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: heads(authority)})
		filler := bytes.Repeat([]byte{0x82}, 16<<10) // ":method: GET" from the table, in a byte
		for i := 0; i < 1000 && err == nil; i++ {
			err = f.WriteContinuation(1, false, filler)
		}
		return err
	},
	"huge header": func(f *http2.Framer, authority string) error {
		block := heads(authority, "x", strings.Repeat("y", 1<<20))
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10]})
		for block = block[16<<10:]; len(block) > 0 && err == nil; {
			n := min(len(block), 16<<10)
			err = f.WriteContinuation(1, n == len(block), block[:n])
			block = block[n:]
		}
		return err
	},
	"settings": func(f *http2.Framer, _ string) (err error) {
		for i := 0; i < 200_000 && err == nil; i++ {
			err = f.WriteSettings()
		}
		return err
	},
}

func TestFloodsOfHTTP2EndTheirConnection(t *testing.T) {
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rules, func(c *Config) { c.Limits.Requests = 32 })
			var most, now atomic.Int32
			port := g.upstream(true, func(_ http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), now.Add(1)))
				<-r.Context().Done()
				now.Add(-1)
			})
			before := runtime.NumGoroutine()
			f, tc := g.framer("a.open.test:" + port)
			done := make(chan string, 1)
			go func() { done <- outcome(f) }()
			err := flood(http2.NewFramer(tc, nil), "a.open.test:"+port)
			_ = tc.CloseWrite()
			how := <-done
			if err == nil && how == "ended" {
				t.Log("the flood was sent whole")
			}
			if most.Load() > 32 {
				t.Errorf("the host had %d requests at once", most.Load())
			}
			_ = tc.Close()
			if n := runtime.NumGoroutine(); n > before+1000 {
				t.Errorf("%d goroutines, %d before", n, before)
			}
			// And the proxy works on, once the requests that were reset have ended.
			for end := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
				res, _ := get(t, g.client(both), "https://shut.test/")
				if res.StatusCode == http.StatusForbidden {
					break
				}
				if res.StatusCode != http.StatusServiceUnavailable || time.Now().After(end) {
					t.Fatal(res.Status)
				}
			}
		})
	}
}

func TestAnHTTP2RequestForAnotherHostIs421(t *testing.T) {
	g := newRig(t, rules)
	port := g.upstream(true, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	for _, block := range [][]byte{
		heads("b.open.test:" + port), heads("shut.test"), heads("b.open.test:"+port, "host", "a.open.test:"+port), heads(""),
		heads("a.open.test:"+port, "host", "shut.test"), heads("a.open.test:"+port, "transfer-encoding", "chunked"),
		heads("a.open.test:"+port, "connection", "close"), heads("a.open.test:"+port, "x\r\ny", "z"),
	} {
		f, tc := g.framer("a.open.test:" + port)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				break
			}
			if h, ok := frame.(*http2.MetaHeadersFrame); ok {
				if s := h.PseudoValue("status"); s != "421" && s != "400" {
					t.Errorf("%q: %s", block, s)
				}
				break
			}
			if _, ok := frame.(*http2.RSTStreamFrame); ok {
				break
			}
		}
		_ = tc.Close()
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("traffic", func(t *testing.T) {
		g := newRig(t, rules)
		hold := func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hold" {
				<-r.Context().Done()
			}
		}
		urls := []string{"https://a.open.test:" + g.upstream(true, hold), "http://a.open.test:" + g.plain(hold), "https://shut.test"}
		for _, url := range urls {
			for _, client := range []*http.Client{g.client(), g.client(both)} {
				get(t, client, url)
				client.Timeout = 50 * time.Millisecond
				if url != "https://shut.test" {
					if res, err := client.Get(url + "/hold"); err == nil {
						_ = res.Body.Close()
						t.Error("it was answered")
					}
				}
			}
		}
		offered := ""
		_, _, _ = g.dialSocket("a.open.test:" + g.upstream(false, echoes(t, &offered)))
	})
	calm(t, before)
}
