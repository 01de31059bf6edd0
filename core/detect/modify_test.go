package detect

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"capsem/core/mitm/flow"
)

func TestTrailersAreLookedThrough(t *testing.T) {
	secret := "correct-horse-battery-staple-0123456789"
	m := NewModifiers(Config{
		Engine:  engineOf(NewOwn(map[string][]byte{"mine": []byte(secret)})),
		Verdict: func(string) string { return Deny },
	})
	var squeezed bytes.Buffer
	zip := gzip.NewWriter(&squeezed)
	_, _ = io.WriteString(zip, "harmless")
	_ = zip.Close()
	for encoding, body := range map[string]string{"": "harmless", "gzip": squeezed.String()} {
		for trailer, pass := range map[string]bool{secret: false, "harmless": true} {
			req, err := http.NewRequestWithContext(flow.With(t.Context(), &flow.Flow{Host: "a.test"}), http.MethodPost, "https://a.test/", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if encoding != "" {
				req.Header.Set("Content-Encoding", encoding)
			}
			req.ContentLength, req.Trailer = -1, http.Header{"X-Last": nil}
			if err := m.ModifyRequest(req); err != nil {
				t.Fatal(err)
			}
			req.Trailer.Set("X-Last", trailer) // as Go's server does when the body has been read
			_, err = io.Copy(io.Discard, req.Body)
			if refused := new(flow.Refusal); pass != (err == nil) || !pass && !errors.As(err, &refused) {
				t.Errorf("%q, trailer %q: %v", encoding, trailer, err)
			}
		}
	}
}
