package builtin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	htmltomarkdown "github.com/JohannesKaufmann/html-to-markdown/v2"
	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/net/html"

	"capsem/core/mcp/peer"
)

const (
	// maxPage bounds a page in bytes, maxRedirects the redirects that are followed, each judged anew.
	maxPage, maxRedirects = 4 << 20, 5
	// defaultLength and maxLength bound what of a page is answered with, in bytes.
	defaultLength, maxLength = 5000, 200_000
	// maxPattern bounds a pattern, maxMatches what it finds.
	maxPattern, maxMatches = 1000, 500
	// maxNodes bounds the elements of a page that is made Markdown, maxNesting their nesting.
	maxNodes, maxNesting = 200_000, 400
)

type fetchInput struct {
	URL        string `json:"url" jsonschema:"an http or https URL"`
	Format     string `json:"format,omitempty" jsonschema:"markdown (the default), content (only the text), or raw"`
	StartIndex int    `json:"start_index,omitempty" jsonschema:"where to begin, in bytes of the result"`
	MaxLength  int    `json:"max_length,omitempty" jsonschema:"how much to answer with, in bytes; 5000 if not given"`
}

type grepInput struct {
	URL          string `json:"url" jsonschema:"an http or https URL"`
	Pattern      string `json:"pattern" jsonschema:"a regular expression (RE2)"`
	ContextLines *int   `json:"context_lines,omitempty" jsonschema:"lines to show around each match; 3 if not given"`
	MaxMatches   int    `json:"max_matches,omitempty" jsonschema:"50 if not given"`
	Raw          bool   `json:"raw,omitempty" jsonschema:"search the page as it came, not its text"`
	StartIndex   int    `json:"start_index,omitempty" jsonschema:"where to begin, in bytes of the result"`
	MaxLength    int    `json:"max_length,omitempty" jsonschema:"how much to answer with, in bytes"`
}

type headersInput struct {
	URL    string `json:"url" jsonschema:"an http or https URL"`
	Method string `json:"method,omitempty" jsonschema:"HEAD (the default) or GET"`
}

func (s *server) addWeb(to *sdk.Server) {
	sdk.AddTool(to, &sdk.Tool{
		Name: "fetch_http", Description: "Fetches a page over HTTP, under the policy of this VM, and answers with it as Markdown.", Annotations: readOnly(true),
	}, s.fetch)
	sdk.AddTool(to, &sdk.Tool{
		Name: "grep_http", Description: "Fetches a page over HTTP, under the policy of this VM, and answers with the lines that match a pattern.", Annotations: readOnly(true),
	}, s.grep)
	sdk.AddTool(to, &sdk.Tool{
		Name: "http_headers", Description: "Makes an HTTP request, under the policy of this VM, and answers with status and header fields.", Annotations: readOnly(true),
	}, s.headers)
}

// page is what was fetched.
type page struct {
	url *url.URL
	*FetchResponse
}

// get fetches a page, following redirects. Each request is judged by the worker.
func (s *server) get(ctx context.Context, method, address string, most int) (*page, error) {
	u, err := url.Parse(address)
	for range maxRedirects + 1 {
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || len(u.String()) > 8<<10 {
			return nil, errors.New("that is no http or https URL, or has a user name in it")
		}
		u.Fragment = ""
		body, err := peer.Marshal(FetchRequest{Method: method, URL: u.String(), MaxBody: most})
		if err != nil {
			return nil, err //nolint:wrapcheck // says what it did
		}
		if body, err = s.worker.Call(ctx, MethodFetch, body); err != nil {
			return nil, err //nolint:wrapcheck // the worker's words
		}
		p := &page{url: u, FetchResponse: &FetchResponse{}}
		if err := peer.Unmarshal(body, p.FetchResponse); err != nil {
			return nil, err //nolint:wrapcheck // says what it did
		}
		to := http.Header(p.Header).Get("Location")
		if to == "" || p.Status < 300 || p.Status > 399 || p.Status == http.StatusNotModified {
			return p, nil
		}
		if u, err = u.Parse(to); err != nil {
			return nil, errors.New("the server redirects to what is no URL")
		}
	}
	return nil, fmt.Errorf("more than %d redirects", maxRedirects)
}

// head begins the answers about a page.
func (p *page) head(length int) string {
	return fmt.Sprintf("URL: %s\nDomain: %s\nStatus: %d\nContent length: %d\n", p.url, p.url.Hostname(), p.Status, length)
}

func (s *server) fetch(ctx context.Context, _ *sdk.CallToolRequest, in fetchInput) (*sdk.CallToolResult, any, error) {
	if in.Format == "" {
		in.Format = "markdown"
	}
	if !slices.Contains([]string{"markdown", "content", "raw"}, in.Format) {
		return nil, nil, fmt.Errorf("format is %.40q, not markdown, content or raw", in.Format)
	}
	p, err := s.get(ctx, http.MethodGet, in.URL, maxPage)
	if err != nil {
		return nil, nil, err
	}
	body, err := p.text(in.Format)
	if err != nil {
		return nil, nil, err
	}
	return text(p.head(len(body)) + window(body, in.StartIndex, in.MaxLength)), nil, nil
}

// window is a part of a text, between characters, and a line that says which.
func window(body string, start, length int) string {
	if length <= 0 {
		length = defaultLength
	}
	start = min(max(start, 0), len(body))
	end := min(start+min(length, maxLength), len(body))
	for start < len(body) && !utf8.RuneStart(body[start]) {
		start++
	}
	for end < len(body) && end > start && !utf8.RuneStart(body[end]) {
		end--
	}
	more := ""
	if end < len(body) {
		more = fmt.Sprintf(" (go on with start_index %d)", end)
	}
	return fmt.Sprintf("Showing: %d-%d\nRemaining: %d%s\n\n%s", start, end, len(body)-end, more, body[start:end])
}

// text is the page as it is wanted.
func (p *page) text(format string) (string, error) {
	kind, params, err := mime.ParseMediaType(http.Header(p.Header).Get("Content-Type"))
	if err != nil {
		kind, _, _ = mime.ParseMediaType(http.DetectContentType(p.Body))
	}
	if format == "raw" {
		return strings.ToValidUTF8(string(p.Body), "\uFFFD"), nil
	}
	isText := strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "json") || strings.HasSuffix(kind, "xml") || strings.HasSuffix(kind, "javascript") || strings.HasSuffix(kind, "yaml")
	if !isText || bytes.IndexByte(p.Body, 0) >= 0 {
		return "", fmt.Errorf("the page is not text but %.80s: with format raw it is given anyway", kind)
	}
	body := strings.ToValidUTF8(string(p.Body), "\uFFFD")
	if strings.EqualFold(params["charset"], "iso-8859-1") || strings.EqualFold(params["charset"], "windows-1252") {
		body = latin(p.Body)
	}
	if kind != "text/html" && kind != "application/xhtml+xml" {
		return body, nil
	}
	doc, err := parseHTML(body)
	if err != nil {
		return "", err
	}
	if format == "content" {
		return plainText(doc), nil
	}
	out, err := htmltomarkdown.ConvertNode(doc, converter.WithDomain(p.url.Scheme+"://"+p.url.Host))
	if err != nil {
		return "", fmt.Errorf("the page cannot be made Markdown: %w", err)
	}
	return string(out), nil
}

// latin reads text of the older character set.
func latin(body []byte) string {
	runes := make([]rune, len(body))
	for i, b := range body {
		runes[i] = rune(b)
	}
	return string(runes)
}

// parseHTML parses a page that is not too intricate: what follows walks it by recursion.
func parseHTML(body string) (*html.Node, error) {
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the page cannot be read: %w", err)
	}
	count, depth := 0, 0
	for n := doc; n != nil; {
		if count++; count > maxNodes || depth > maxNesting {
			return nil, errors.New("the page is too intricate: with format raw it is given anyway")
		}
		if n.FirstChild != nil {
			n, depth = n.FirstChild, depth+1
			continue
		}
		for n != nil && n.NextSibling == nil {
			n, depth = n.Parent, depth-1
		}
		if n != nil {
			n = n.NextSibling
		}
	}
	return doc, nil
}

// plainText is the text of a page without what is not for reading.
func plainText(n *html.Node) string {
	var out strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode && slices.Contains([]string{"script", "style", "noscript", "template", "svg", "head"}, n.Data) {
			return
		}
		if n.Type == html.TextNode {
			if words := strings.Join(strings.Fields(n.Data), " "); words != "" {
				out.WriteString(words)
				out.WriteByte('\n')
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(n)
	return out.String()
}

func (s *server) grep(ctx context.Context, _ *sdk.CallToolRequest, in grepInput) (*sdk.CallToolResult, any, error) {
	if len(in.Pattern) == 0 || len(in.Pattern) > maxPattern {
		return nil, nil, fmt.Errorf("a pattern has 1 to %d bytes", maxPattern)
	}
	pattern, err := regexp.Compile(in.Pattern)
	if err != nil {
		return nil, nil, fmt.Errorf("the pattern is no regular expression: %w", err)
	}
	p, err := s.get(ctx, http.MethodGet, in.URL, maxPage)
	if err != nil {
		return nil, nil, err
	}
	format := "content"
	if in.Raw {
		format = "raw"
	}
	body, err := p.text(format)
	if err != nil {
		return nil, nil, err
	}
	around, most := 3, 50
	if in.ContextLines != nil {
		around = min(max(*in.ContextLines, 0), 50)
	}
	if in.MaxMatches > 0 {
		most = min(in.MaxMatches, maxMatches)
	}
	found, count := search(strings.Split(body, "\n"), pattern, around, most)
	return text(p.head(len(body)) + fmt.Sprintf("Matches: %d\n", count) + window(found, in.StartIndex, max(in.MaxLength, defaultLength))), nil, nil
}

// search gives the lines that match, with those around them, and how many matched.
func search(all []string, pattern *regexp.Regexp, around, most int) (string, int) {
	var out strings.Builder
	count, shown := 0, 0
	for i, line := range all {
		if !pattern.MatchString(line) {
			continue
		}
		if count++; count > most {
			break
		}
		first := max(i-around, shown)
		if first > shown && out.Len() > 0 {
			out.WriteString("--\n")
		}
		last := min(i+around+1, len(all))
		for n := first; n < last; n++ {
			mark := " "
			if pattern.MatchString(all[n]) {
				mark = ">"
			}
			fmt.Fprintf(&out, "%s%d: %.2000s\n", mark, n+1, all[n])
		}
		shown = max(shown, last)
	}
	return out.String(), min(count, most)
}

func (s *server) headers(ctx context.Context, _ *sdk.CallToolRequest, in headersInput) (*sdk.CallToolResult, any, error) {
	if in.Method == "" {
		in.Method = http.MethodHead
	}
	if in.Method != http.MethodHead && in.Method != http.MethodGet {
		return nil, nil, fmt.Errorf("method is %.20q, not HEAD or GET", in.Method)
	}
	p, err := s.get(ctx, in.Method, in.URL, 0)
	if err != nil {
		return nil, nil, err
	}
	var out strings.Builder
	for name, values := range p.Header {
		for _, v := range values {
			out.WriteString(name + ": " + v + "\n")
		}
	}
	rows := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	slices.Sort(rows)
	return text(fmt.Sprintf("URL: %s\nStatus: %d %s\n\n%s\n", p.url, p.Status, http.StatusText(p.Status), strings.Join(rows, "\n"))), nil, nil
}
