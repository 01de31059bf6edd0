package swap

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"capsem/core/mitm/flow"
	"capsem/core/proto"
)

// endless is n bytes of JSON, with a placeholder in it now and then.
func endless(n int) io.Reader {
	part := strings.Repeat(`{"text":"much of it, and \"quoted\" too\n"},`, 800) + `{"token":"` + placeholder + `"},`
	return io.LimitReader(&repeated{text: part}, int64(n))
}

type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

// modified is a request that has been through the modifier.
func modified(t testing.TB, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	v := NewVault()
	if err := v.Set(credentials(proto.GrantPlace{In: "json", Name: "token"})); err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodPost, "https://api.good.test/", body)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	req = req.WithContext(flow.With(t.Context(), &flow.Flow{Host: "api.good.test", Scheme: "https"}))
	if err := NewModifiers(Config{Vault: v}).Requests().ModifyRequest(req); err != nil {
		t.Fatal(err)
	}
	return req
}

func TestALargeBodyTakesLittleMemory(t *testing.T) {
	const size = 100 << 20
	packed, into := io.Pipe()
	go func() { // ends with the test's reading
		w := gzip.NewWriter(into)
		_, err := io.Copy(w, endless(size))
		_ = into.CloseWithError(errors.Join(err, w.Close(), io.EOF))
	}()
	for name, req := range map[string]*http.Request{
		"plain": modified(t, endless(size)), "gzip": modified(t, packed, "Content-Encoding", "gzip"),
	} {
		var before, now runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		got, most, buf := 0, uint64(0), make([]byte, 1<<20)
		for {
			n, err := req.Body.Read(buf)
			if bytes.Contains(buf[:n], []byte(placeholder)) {
				t.Fatalf("%s: a placeholder went out", name)
			}
			before := got
			if got += n; got>>24 != before>>24 {
				runtime.GC()
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
			if err != nil {
				break
			}
		}
		if got != size || most > before.HeapAlloc+(8<<20) {
			t.Errorf("%s: %d of %d bytes, %d bytes of memory more", name, got, size, int64(most)-int64(before.HeapAlloc))
		}
	}
}

func BenchmarkJSONBody(b *testing.B) {
	const size = 8 << 20
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"without": func(r io.Reader) io.Reader { return r },
		"swapped": func(r io.Reader) io.Reader { return modified(b, r).Body },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if _, err := io.Copy(io.Discard, wrap(endless(size))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHeaders(b *testing.B) {
	v := NewVault()
	if err := v.Set(credentials(proto.GrantPlace{In: "header", Name: "x-key"})); err != nil {
		b.Fatal(err)
	}
	m := NewModifiers(Config{Vault: v}).Requests()
	for b.Loop() {
		req := httptest.NewRequest(http.MethodGet, "https://api.good.test/v1/messages?beta=true", nil)
		req.Header.Set("X-Key", placeholder)
		req.Header.Set("User-Agent", "some client/1.2.3 of some length")
		if err := m.ModifyRequest(req.WithContext(flow.With(b.Context(), &flow.Flow{Host: "api.good.test", Scheme: "https"}))); err != nil {
			b.Fatal(err)
		}
	}
}
