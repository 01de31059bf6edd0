package swap

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"capsem/core/detect/match"
	"capsem/core/detect/pipe"
	"capsem/core/mitm/flow"
)

// Answers is the modifier of answers.
type Answers struct{ m *Modifiers }

// Answers gives the modifier of answers, to come before all others that look at them.
func (m *Modifiers) Answers() Answers { return Answers{m} }

// ModifyResponse takes real values out of an answer of a host that one is bound to.
func (a Answers) ModifyResponse(resp *http.Response) error {
	if resp.Request == nil || flow.From(resp.Request.Context()) == nil {
		return errors.New("scrub answer: it has no flow")
	}
	p, ok := flow.From(resp.Request.Context()).Get(passKey{}).(*pass)
	if !ok || !p.any || p.t.values.Len() == 0 {
		return nil
	}
	for name, values := range resp.Header {
		for i, v := range values {
			values[i] = string(p.scrub("header "+shown(strings.ToLower(name)), []byte(v)))
		}
	}
	resp.Status = string(p.scrub("status", []byte(resp.Status)))
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.Body == nil || resp.Body == http.NoBody {
		return nil
	}
	trailers := func() error {
		for _, values := range resp.Trailer {
			for i, v := range values {
				values[i] = string(p.scrub("trailer", []byte(v)))
			}
		}
		return nil
	}
	if !pipe.IsText(resp.Header) {
		resp.Body = &ending{resp.Body, trailers}
		return nil
	}
	if resp.Request.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return nil
	}
	src, end := io.Reader(resp.Body), resp.Body.Close
	if e := pipe.Encoding(resp.Header); e != "" {
		plain, err := pipe.Decode(e, resp.Body)
		if err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		src, end = plain, plain.Closing(end)
		resp.Header.Del("Content-Encoding")
	}
	resp.ContentLength = -1
	resp.Header.Del("Content-Length")
	resp.Body = pipe.NewBody(src, end, p.scrubber("body"), trailers)
	return nil
}

// ending is a body that nothing is taken out of, but behind which something may come.
type ending struct {
	io.ReadCloser
	end func() error
}

// Read looks at what comes behind before the reader learns of the end.
func (e *ending) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if bad := e.end(); bad != nil {
			err = bad
		}
	}
	return n, err //nolint:wrapcheck // an io.Reader hands errors through
}

// scrubber changes values back into placeholders, and tells of each.
func (p *pass) scrubber(where string, tell ...func()) *match.Stream {
	return match.NewStream(p.t.values, func(h *match.Hit) ([]byte, error) {
		text := p.t.valued[h.Secret]
		p.event(Scrubbed, where, text, h.Form)
		for _, t := range tell {
			t()
		}
		return h.Instead(p.t.texts[text].placeholder), nil
	})
}

func (p *pass) scrub(where string, s []byte) []byte {
	if len(s) < p.t.values.Shortest() {
		return s
	}
	stream := p.scrubber(where)
	defer stream.Free()
	out, _ := stream.Push(s, true) // a scrubber never fails
	return bytes.Clone(out)
}
