//go:build vm

package vmtest

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"capsem/core/mitm/authority"
)

// The hosts of the providers.
const (
	anthropicHost = "api.anthropic.com"
	openAIHost    = "api.openai.com"
	chatGPTHost   = "chatgpt.com"
	googleHost    = "generativelanguage.googleapis.com"
	otherHost     = "other.test"
)

// providers are stand-ins for Anthropic, OpenAI and Google, behind an HTTP proxy of the owner's that knows no other hosts: what is asked of
// them comes from the real clients, to the real names and ports.
type providers struct {
	// proxy and dns are addresses, ca the file with the authority of the stand-ins.
	proxy, dns, ca string
	// keys are the real keys, by host.
	keys map[string]string

	mu    sync.Mutex
	calls []providerCall
	// strange are hosts that the proxy does not know.
	strange []string
}

// providerCall is one request that a provider got.
type providerCall struct {
	host, method, path string
	// key says that it had the real key, wrong that it had another; stream that its answer is one.
	key, wrong, stream bool
}

// newProviders starts them.
func newProviders(t *testing.T, keys map[string]string) *providers {
	t.Helper()
	p := &providers{ca: filepath.Join(t.TempDir(), "hosts.pem"), keys: keys}
	hosts, err := authority.LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.ca, hosts.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connected := &tunnels{addr: listen.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	api := &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(p.serve), TLSConfig: &tls.Config{
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return hosts.Leaf(h.ServerName) },
	}}
	front := &http.Server{ErrorLog: quiet, Handler: p.connect(connected)}
	names := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(somewhere)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = api.ServeTLS(connected, "", "") })
	serving.Go(func() { _ = front.Serve(listen) })
	serving.Go(func() { _ = names.ActivateAndServe() })
	t.Cleanup(func() {
		_ = front.Close()
		_ = api.Close()
		_ = names.Shutdown()
		serving.Wait()
	})
	p.proxy, p.dns = "http://"+listen.Addr().String(), packets.LocalAddr().String()
	return p
}

// somewhere answers every name with a public address that nobody dials: the proxy is between.
func somewhere(rw dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(8, 8, 8, 8)}}
	}
	_ = rw.WriteMsg(m)
}

// tunnels is a listener of what comes through the proxy.
type tunnels struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *tunnels) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *tunnels) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *tunnels) Addr() net.Addr { return l.addr }

// buffered is a connection of which some has been read.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// connect is the proxy.
func (p *providers) connect(to *tunnels) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, port, _ := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || port != "443" || !slices.Contains([]string{anthropicHost, openAIHost, chatGPTHost, googleHost, otherHost}, host) {
			p.mu.Lock()
			p.strange = append(p.strange, r.Host)
			p.mu.Unlock()
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		select {
		case to.conns <- &buffered{c, buf.Reader}:
		case <-to.closed:
			_ = c.Close()
		}
	})
}

// serve is all of them.
func (p *providers) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var ask struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	_ = json.Unmarshal(body, &ask) // some have none
	key := p.keys[r.Host]
	call := providerCall{host: r.Host, method: r.Method, path: r.URL.Path}
	// Codex with a sign-in compresses what it sends.
	call.stream = ask.Stream || r.Header.Get("Accept") == "text/event-stream" || strings.Contains(call.path, ":streamGenerateContent")
	for _, sent := range []string{r.Header.Get("X-Api-Key"), r.Header.Get("X-Goog-Api-Key"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")} {
		call.key = call.key || key != "" && sent == key
		call.wrong = call.wrong || sent != "" && sent != key
	}
	p.mu.Lock()
	p.calls = append(p.calls, call)
	p.mu.Unlock()
	if !call.key {
		http.Error(w, `{"error":{"type":"authentication_error","message":"this is not the key","code":"invalid_api_key"}}`, http.StatusUnauthorized)
		return
	}
	kind, text := "application/json", p.answer(call, ask.Model, string(body))
	if text == nil {
		http.Error(w, `{"error":{"type":"not_found_error","message":"there is no such thing here"}}`, http.StatusNotFound)
		return
	}
	if call.stream {
		kind = "text/event-stream"
	}
	w.Header().Set("Content-Type", kind)
	for _, piece := range text {
		_, _ = io.WriteString(w, piece)
		_ = http.NewResponseController(w).Flush()
	}
}

// answer is what a provider says, in the pieces in which it does; nil if it knows nothing of what is asked.
func (p *providers) answer(c providerCall, model, body string) []string {
	switch path := c.host + c.path; {
	case path == chatGPTHost+"/backend-api/codex/models":
		return []string{`{"models":[]}`}
	case path == chatGPTHost+"/backend-api/wham/accounts/check":
		return []string{`{"accounts":[{"id":"acc-1","plan_type":"pro","workspace_backend_origin":"https://chatgpt.com","account_routing_override":"NO_CONSTRAINT"}]}`}
	case c.method != http.MethodPost:
	case path == anthropicHost+"/v1/messages" && c.stream:
		return anthropicStream(model, body)
	case path == anthropicHost+"/v1/messages":
		return []string{fmt.Sprintf(`{"id":"msg_1","type":"message","role":"assistant","model":%q,"content":[{"type":"text","text":"forty-two"}],`+
			`"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":7}}`, model)}
	case (path == openAIHost+"/v1/responses" || path == chatGPTHost+"/backend-api/codex/responses") && c.stream:
		return responsesStream(model)
	case path == openAIHost+"/v1/responses":
		return []string{responsesObject(model, "completed")}
	case c.host == googleHost && c.stream:
		model, _, _ = strings.Cut(filepath.Base(c.path), ":")
		return []string{googleChunk(model, "forty-", ""), googleChunk(model, "two", `,"finishReason":"STOP"`)}
	case c.host == googleHost && strings.HasSuffix(c.path, ":generateContent"):
		model, _, _ = strings.Cut(filepath.Base(c.path), ":")
		text := "forty-two"
		if strings.Contains(body, "complexity_score") { // its command line asks a small model which one to ask
			text = `{"complexity_reasoning":"it is easy","complexity_score":10}`
		}
		return []string{strings.TrimPrefix(googleChunk(model, text, `,"finishReason":"STOP"`), "data: ")}
	}
	return nil
}

func event(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }

// makeIt in a prompt has the model ask for a command.
const makeIt = "capsem-test-make-it"

// anthropicStream is an answer of Anthropic's. Who says makeIt is asked to run a command first.
func anthropicStream(model, body string) []string {
	content, stop := `{"type":"text","text":""}`, "end_turn"
	delta := `{"type":"text_delta","text":"forty-two"}`
	if strings.Contains(body, makeIt) && strings.Contains(body, `"name":"Bash"`) && !strings.Contains(body, "toolu_made") {
		content, stop = `{"type":"tool_use","id":"toolu_made","name":"Bash","input":{}}`, "tool_use"
		delta = `{"type":"input_json_delta","partial_json":"{\"command\":\"echo hi > made\",\"description\":\"makes it\"}"}`
	}
	return []string{
		event("message_start", fmt.Sprintf(`{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":%q,"content":[],`+
			`"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}`, model)),
		event("content_block_start", `{"type":"content_block_start","index":0,"content_block":`+content+`}`),
		event("ping", `{"type":"ping"}`),
		event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":`+delta+`}`),
		event("content_block_stop", `{"type":"content_block_stop","index":0}`),
		event("message_delta", `{"type":"message_delta","delta":{"stop_reason":"`+stop+`","stop_sequence":null},"usage":{"output_tokens":7}}`),
		event("message_stop", `{"type":"message_stop"}`),
	}
}

const responsesItem = `{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"forty-two","annotations":[]}]}`

func responsesObject(model, status string) string {
	output, usage := "", "null"
	if status == "completed" {
		output = responsesItem
		usage = `{"input_tokens":12,"input_tokens_details":{"cached_tokens":0},"output_tokens":8,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":20}`
	}
	return fmt.Sprintf(`{"id":"resp_1","object":"response","created_at":1,"status":%q,"model":%q,"error":null,"output":[%s],"usage":%s}`, status, model, output, usage)
}

// responsesStream is an answer of OpenAI's.
func responsesStream(model string) []string {
	at := `"item_id":"msg_1","output_index":0,"content_index":0`
	return []string{
		event("response.created", `{"type":"response.created","sequence_number":0,"response":`+responsesObject(model, "in_progress")+`}`),
		event("response.output_item.added", `{"type":"response.output_item.added","sequence_number":1,"output_index":0,`+
			`"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}`),
		event("response.content_part.added", `{"type":"response.content_part.added","sequence_number":2,`+at+`,"part":{"type":"output_text","text":"","annotations":[]}}`),
		event("response.output_text.delta", `{"type":"response.output_text.delta","sequence_number":3,`+at+`,"delta":"forty-two"}`),
		event("response.output_text.done", `{"type":"response.output_text.done","sequence_number":4,`+at+`,"text":"forty-two"}`),
		event("response.content_part.done", `{"type":"response.content_part.done","sequence_number":5,`+at+`,"part":{"type":"output_text","text":"forty-two","annotations":[]}}`),
		event("response.output_item.done", `{"type":"response.output_item.done","sequence_number":6,"output_index":0,"item":`+responsesItem+`}`),
		event("response.completed", `{"type":"response.completed","sequence_number":7,"response":`+responsesObject(model, "completed")+`}`),
	}
}

// googleChunk is a piece of an answer of Google's.
func googleChunk(model, text, more string) string {
	return fmt.Sprintf(`data: {"candidates":[{"content":{"role":"model","parts":[{"text":%q}]},"index":0%s}],`+
		`"usageMetadata":{"promptTokenCount":13,"candidatesTokenCount":9,"totalTokenCount":22},"modelVersion":%q,"responseId":"r1"}`+"\r\n\r\n", text, more, model)
}

// take gives the calls of a host since the last take, and forgets them.
func (p *providers) take(host string) (out []providerCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = slices.DeleteFunc(p.calls, func(c providerCall) bool {
		if c.host == host {
			out = append(out, c)
		}
		return c.host == host
	})
	return out
}
