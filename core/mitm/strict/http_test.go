package strict

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// complete is how many requests net/http reads whole from bytes.
func complete(t *testing.T, text []byte) int {
	t.Helper()
	n := 0
	for br := bufio.NewReader(bytes.NewReader(text)); ; n++ {
		r, err := http.ReadRequest(br)
		if err != nil {
			return n
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return n
		}
	}
}

// counter knows how much has been read.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// endsByHTTP is where net/http sees requests end; whole says that all bytes were taken for requests.
func endsByHTTP(r io.Reader) (ends []int, err error) {
	in := &counter{r: r}
	br := bufio.NewReaderSize(in, 64<<10)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return ends, err
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return ends, err
		}
		ends = append(ends, in.n-br.Buffered())
	}
}

// endsByUs is where we do.
func endsByUs(text []byte) (ends []int, passed int, err error) {
	s := NewReader(iotest.OneByteReader(bytes.NewReader(text)), Limits{})
	s.ended = func(n int) { ends = append(ends, int(s.passed)+n) }
	got, err := io.ReadAll(s)
	return ends, len(got), err
}

// Whatever passes, net/http reads to the same ends; where it refuses what we let through, it has seen the same ends before.
func FuzzSameEndsAsHTTP(f *testing.F) {
	for _, a := range attacks {
		if len(a.text) < 4<<10 {
			f.Add([]byte(a.text))
		}
	}
	f.Add([]byte(lines("hello", post, host, "Content-Length: 5") + lines("", "GET / HTTP/1.1", host) + chunked("5\r\nhello\r\n0\r\nA: b\r\n\r\n") + lines("", "GET / HTTP/1.1", host)))
	f.Add([]byte(lines("", "CONNECT a:1 HTTP/1.1", host) + lines("x", "PUT / HTTP/1.0", "Content-Length: 1", "Connection: close")))
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, passed, err := endsByUs(text)
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("%v", err)
		}
		if refused != nil && int(refused.Offset) != passed {
			t.Errorf("refused at %d, passed %d", refused.Offset, passed)
		}
		theirs, httpErr := endsByHTTP(NewReader(bytes.NewReader(text), Limits{}))
		if len(theirs) > len(ours) {
			t.Fatalf("net/http sees ends %v, we %v", theirs, ours)
		}
		for i, end := range theirs {
			if end != ours[i] {
				t.Fatalf("net/http sees ends %v, we %v", theirs, ours)
			}
		}
		if len(theirs) < len(ours) && (errors.Is(httpErr, io.EOF) || errors.Is(httpErr, refused)) {
			t.Errorf("net/http waits for more after %v, we saw %v", theirs, ours)
		}
	})
}

// A server gets the typed error when it is in the body of a request, and else answers 400 by itself.
func TestAServerRefusesWhatIsCutOff(t *testing.T) {
	t.Parallel()
	br := bufio.NewReader(NewReader(strings.NewReader(chunked("5\r\nhello\r\n5;x\r\n")), Limits{}))
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatal(err)
	}
	var refused *Error
	if got, err := io.ReadAll(r.Body); !errors.As(err, &refused) || refused.Kind != BadChunk || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func BenchmarkReader(b *testing.B) {
	small := lines("", "GET /v1/things?x=1 HTTP/1.1", host, "User-Agent: curl/8.14.1", "Accept: */*", "Accept-Encoding: gzip, br", "Authorization: Bearer 0123456789abcdef0123456789abcdef", "X-Request-Id: 0b6e1f2a")
	for name, text := range map[string]string{"small requests": strings.Repeat(small, 1000), "1 MiB body": lines(strings.Repeat("x", 1<<20), post, host, "Content-Length: 1048576")} {
		for _, kind := range []string{"bare", "strict"} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				p := make([]byte, 4096)
				for b.Loop() {
					var r io.Reader = strings.NewReader(text)
					if kind == "strict" {
						r = NewReader(r, Limits{})
					}
					for {
						if _, err := r.Read(p); err != nil {
							if !errors.Is(err, io.EOF) {
								b.Fatal(err)
							}
							break
						}
					}
				}
			})
		}
	}
}
