package export

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"capsem/core/buildinfo"
	"capsem/core/ledger"
)

// har writes the requests as an HTTP archive 1.2. Connections that are no HTTP are left out.
type har struct {
	out  *output
	some bool
}

// harPair is a name and its value, as headers and parameters have.
type harPair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type harEntry struct {
	StartedDateTime string      `json:"startedDateTime"`
	Time            int64       `json:"time"`
	Request         harRequest  `json:"request"`
	Response        harResponse `json:"response"`
	Cache           struct{}    `json:"cache"`
	Timings         harTimings  `json:"timings"`
	ServerIPAddress string      `json:"serverIPAddress,omitempty"`
	Comment         string      `json:"comment,omitempty"`
	// Capsem is what the format has no place for; names that begin with _ are free.
	Capsem map[string]any `json:"_capsem"`
}

type harRequest struct {
	Method      string    `json:"method"`
	URL         string    `json:"url"`
	HTTPVersion string    `json:"httpVersion"`
	Cookies     []harPair `json:"cookies"`
	Headers     []harPair `json:"headers"`
	QueryString []harPair `json:"queryString"`
	PostData    *harPost  `json:"postData,omitempty"`
	HeadersSize int64     `json:"headersSize"`
	BodySize    int64     `json:"bodySize"`
}

type harPost struct {
	MimeType string    `json:"mimeType"`
	Params   []harPair `json:"params"`
	Text     string    `json:"text"`
}

type harResponse struct {
	Status      int64      `json:"status"`
	StatusText  string     `json:"statusText"`
	HTTPVersion string     `json:"httpVersion"`
	Cookies     []harPair  `json:"cookies"`
	Headers     []harPair  `json:"headers"`
	Content     harContent `json:"content"`
	RedirectURL string     `json:"redirectURL"`
	HeadersSize int64      `json:"headersSize"`
	BodySize    int64      `json:"bodySize"`
	// TransferSize is Chromium's, which else takes the length of the head that is not known, -1, for a part of it.
	TransferSize int64 `json:"_transferSize"`
}

type harContent struct {
	Size     int64  `json:"size"`
	MimeType string `json:"mimeType"`
	Text     string `json:"text,omitempty"`
}

type harTimings struct {
	Blocked int64 `json:"blocked"`
	DNS     int64 `json:"dns"`
	Connect int64 `json:"connect"`
	Send    int64 `json:"send"`
	Wait    int64 `json:"wait"`
	Receive int64 `json:"receive"`
	SSL     int64 `json:"ssl"`
}

func (h *har) kinds() []string { return []string{"net"} }

func (h *har) begin() error {
	if err := h.out.text(`{"log":{"version":"1.2","creator":`); err != nil {
		return err
	}
	if err := h.out.value(map[string]string{"name": "capsem", "version": buildinfo.Version}); err != nil {
		return err
	}
	return h.out.text(`,"pages":[],"entries":[`)
}

func (h *har) pause() error { return nil }

func (h *har) end() error { return h.out.text("]}}\n") }

func (h *har) event(e *ledger.Entry) error {
	r := row{e}
	if r.text("method") == "" {
		return nil
	}
	sep := ",\n"
	if !h.some {
		sep, h.some = "\n", true
	}
	if err := h.out.text(sep); err != nil {
		return err
	}
	return h.out.value(harOf(r))
}

func harOf(r row) *harEntry {
	version := "HTTP/1.1"
	if r.text("conn_type") == "h2" {
		version = "HTTP/2.0"
	}
	ms := r.took().Milliseconds()
	requestHeaders, responseHeaders := pairsOf(r.text("request_headers")), pairsOf(r.text("response_headers"))
	e := &harEntry{
		StartedDateTime: r.at().Format("2006-01-02T15:04:05.000Z07:00"), Time: ms,
		Request: harRequest{
			Method: r.text("method"), URL: urlOf(r), HTTPVersion: version, Cookies: []harPair{}, Headers: requestHeaders, QueryString: queryOf(r.text("query")),
			HeadersSize: -1, BodySize: r.int("bytes_sent"),
		},
		Response: harResponse{
			Status: r.int("status_code"), StatusText: http.StatusText(int(r.int("status_code"))), HTTPVersion: version, Cookies: []harPair{}, Headers: responseHeaders,
			Content:     harContent{Size: r.int("bytes_received"), MimeType: mimeOf(responseHeaders), Text: r.text("response_body_preview")},
			HeadersSize: -1, BodySize: r.int("bytes_received"), TransferSize: r.int("bytes_received"),
		},
		// Only the whole time is known.
		Timings: harTimings{Blocked: -1, DNS: -1, Connect: -1, Send: 0, Wait: ms, Receive: 0, SSL: -1},
		Comment: r.text("error"), Capsem: map[string]any{},
	}
	if body := r.text("request_body_preview"); body != "" {
		e.Request.PostData = &harPost{MimeType: mimeOf(requestHeaders), Params: []harPair{}, Text: body}
	}
	if addr, _, err := net.SplitHostPort(r.text("remote_addr")); err == nil {
		e.ServerIPAddress = addr
	}
	for _, name := range []string{"decision", "matched_rule", "reason", "ask_id", "credential", "process_name", "pid", "conn_type"} {
		if v, ok := r.Fields[name]; ok {
			e.Capsem[name] = v
		}
	}
	return e
}

// schemeOf is the scheme of a request.
func schemeOf(r row) string {
	plain := r.int("port") == 80
	switch kind := r.text("conn_type"); {
	case kind == "websocket" && plain:
		return "ws"
	case kind == "websocket":
		return "wss"
	case kind == "http", kind == "h2" && plain:
		return "http"
	}
	return "https"
}

// urlOf puts a request's URL together.
func urlOf(r row) string {
	scheme, host, port := schemeOf(r), r.text("domain"), r.int("port")
	if usual := map[string]int64{"http": 80, "ws": 80, "https": 443, "wss": 443}[scheme]; port != usual && port != 0 {
		host = net.JoinHostPort(host, strconv.FormatInt(port, 10))
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	path := r.text("path")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	text := scheme + "://" + host + path
	if q := r.text("query"); q != "" {
		text += "?" + q
	}
	return text
}

// pairsOf reads recorded headers.
func pairsOf(text string) []harPair {
	out := []harPair{}
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			out = append(out, harPair{name, value})
		}
	}
	return out
}

func queryOf(raw string) []harPair {
	out := []harPair{}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		for _, s := range []*string{&key, &value} {
			if plain, err := url.QueryUnescape(*s); err == nil {
				*s = plain
			}
		}
		out = append(out, harPair{key, value})
	}
	return out
}

func mimeOf(headers []harPair) string {
	for _, h := range headers {
		if h.Name == "content-type" {
			return h.Value
		}
	}
	return ""
}
