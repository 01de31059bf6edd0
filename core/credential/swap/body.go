package swap

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"capsem/core/detect/match"
	"capsem/core/detect/pipe"
)

// requestBody wraps the body of a request.
func (p *pass) requestBody(req *http.Request) error {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	swaps := p.swapsJSON(req.Header)
	look := func() *match.Stream {
		return match.NewStream(p.t.placeholders, func(h *match.Hit) ([]byte, error) { return p.inBody(h, swaps) })
	}
	end := func() error { return p.trailers(req.Trailer) }
	encoded := pipe.Encoding(req.Header)
	if encoded == "" {
		if swaps && p.changesLength() {
			req.ContentLength = -1
			req.Header.Del("Content-Length")
		}
		req.Body = pipe.NewBody(req.Body, req.Body.Close, look(), end)
		return nil
	}
	if swaps {
		plain, err := pipe.Decode(encoded, req.Body)
		if err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		req.ContentLength = -1
		req.Header.Del("Content-Length")
		req.Header.Del("Content-Encoding")
		req.Body = pipe.NewBody(plain, plain.Closing(req.Body.Close), look(), end)
		return nil
	}
	req.Body = pipe.NewPeek(encoded, req.Body, look(), look(), end)
	return nil
}

// swapsJSON says whether anything is put into the body of a request.
func (p *pass) swapsJSON(h http.Header) bool {
	if !p.any || !jsonBody(h) {
		return false
	}
	for i, x := range p.t.texts {
		if !p.bound[i] || x.value == "" {
			continue
		}
		for _, place := range x.grant.places {
			if place.In == "json" {
				return true
			}
		}
	}
	return false
}

// changesLength says whether what is put in is of another length than what it stands for. Escapes in the guest's text count too: such a
// placeholder is left alone when the length has to stay.
func (p *pass) changesLength() bool {
	for i, x := range p.t.texts {
		if p.bound[i] && x.value != "" && len(jsonText(x.value)) != len(x.placeholder) {
			return true
		}
	}
	return false
}

// jsonText is how a text is written between quotes in JSON.
func jsonText(s string) string {
	text, err := json.Marshal(s)
	if err != nil || len(text) < 2 {
		return ""
	}
	return string(text[1 : len(text)-1])
}

// field is what is before a text of a JSON object: its name.
var field = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"\s*:\s*"$`)

// inBody deals with a placeholder in the body of a request. A value is put in only where a text of JSON begins with it: a conversation in
// which a placeholder is told of is not what it is for.
func (p *pass) inBody(h *match.Hit, swaps bool) ([]byte, error) {
	x := &p.t.texts[h.Secret]
	if swaps && p.bound[h.Secret] && x.value != "" && h.Form == match.Plain {
		if m := field.FindSubmatch(h.Before); len(m) == 2 && x.grant.goesInto("json", string(m[1])) {
			return []byte(jsonText(p.injected("body", h.Secret, h.Form))), nil
		}
	}
	return nil, p.stray("body", h.Secret, h.Form)
}

// trailers looks at what came behind a body.
func (p *pass) trailers(h http.Header) error {
	for name, values := range h {
		if err := p.scan("trailer", name+": "+strings.Join(values, ",")); err != nil {
			return err
		}
	}
	return nil
}
