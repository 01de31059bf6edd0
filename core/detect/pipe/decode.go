// Package pipe reads the bodies of requests and answers through filters, also those that are compressed.
package pipe

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"capsem/core/mitm/flow"
)

// known are the encodings that can be undone.
var known = []string{"gzip", "x-gzip", "deflate", "br", "zstd"}

// What decoders keep in memory: maxWindow bounds that of zstd, brotli's is in its format, deflate's is small.
const maxWindow, brotliWindow, deflateWindow = 8 << 20, 16 << 20, 32 << 10

// Encoding gives the encoding of a body, "" for none and for one that is not known. Of several only the text as it is can be looked at.
func Encoding(h http.Header) string {
	e := strings.ToLower(strings.TrimSpace(strings.Join(h.Values("Content-Encoding"), ",")))
	if slices.Contains(known, e) {
		return e
	}
	return ""
}

// OnlyKnown leaves those in a request's wishes that an answer can be read in.
func OnlyKnown(h http.Header) {
	wishes := h.Values("Accept-Encoding")
	if len(wishes) == 0 {
		return
	}
	var out []string
	for w := range strings.SplitSeq(strings.Join(wishes, ","), ",") {
		name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(w)), ";")
		for _, k := range known {
			if strings.TrimSpace(name) == k {
				out = append(out, strings.TrimSpace(w))
			}
		}
	}
	if len(out) == 0 {
		out = []string{"identity"}
	}
	h.Set("Accept-Encoding", strings.Join(out, ", "))
}

// Decode undoes an encoding. Nothing is read before the first Read.
func Decode(encoding string, from io.Reader) (*Decoder, error) {
	plain, err := decode(encoding, from)
	return Bound(encoding, plain), err
}

// Bound has what a reader that undoes an encoding remembers count.
func Bound(encoding string, plain io.Reader) *Decoder {
	d := &Decoder{Reader: plain, window: deflateWindow}
	switch encoding {
	case "br":
		d.window = brotliWindow
	case "zstd":
		d.window = maxWindow
	}
	return d
}

func decode(encoding string, from io.Reader) (io.Reader, error) {
	switch encoding {
	case "br":
		return brotli.NewReader(from), nil
	case "zstd":
		return &lazy{from: from, open: func(r io.Reader) (io.Reader, error) {
			return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		}}, nil
	case "deflate":
		return &lazy{from: from, open: func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }}, nil
	case "gzip", "x-gzip":
		return &lazy{from: from, open: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }}, nil
	}
	return nil, fmt.Errorf("decode body: encoding %.20q is not known", encoding)
}

// lazy opens a decoder at the first Read: the body may not have come yet.
type lazy struct {
	from io.Reader
	open func(io.Reader) (io.Reader, error)
	to   io.Reader
	err  error
}

// Read reads decoded bytes.
func (l *lazy) Read(p []byte) (int, error) {
	if l.to == nil && l.err == nil {
		if l.to, l.err = l.open(l.from); errors.Is(l.err, io.EOF) {
			l.err = io.ErrUnexpectedEOF
		}
	}
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.to.Read(p)
	if err != nil {
		l.err = err
		if d, ok := l.to.(*zstd.Decoder); ok {
			d.Close()
		}
	}
	return n, err //nolint:wrapcheck // an io.Reader hands errors through
}

// A body that decodes to more than bombSize bytes and to more than bombRatio times its own is not worth its decoding.
const bombSize, bombRatio = 64 << 20, 300

// peekLag is how much of an encoded body is held back: more than any decoder reads ahead of what it has given.
const peekLag = 512 << 10

// peek passes an encoded body on as it is, but no part of it before what it decodes to has been looked at.
type peek struct {
	src   io.ReadCloser
	plain *Decoder
	// queue is what the decoder has taken of the body. It is looked at as it is too: a decoder may leave something out.
	queue    []byte
	memory   Memory
	raw, dec Filter
	end      func() error
	buf      []byte
	done     bool
	// taken and decoded count bytes of the body and of what it decodes to.
	taken, decoded int64
	err            error
}

// NewPeek makes a body that goes on as it is, in its encoding, while raw looks at it so and dec at what it decodes to; end may be nil. What
// they give is of no interest.
func NewPeek(encoding string, src io.ReadCloser, raw, dec Filter, end func() error) io.ReadCloser {
	p := &peek{src: src, raw: raw, dec: dec, end: end, buf: make([]byte, chunk)}
	plain, err := Decode(encoding, bufio.NewReaderSize(io.TeeReader(src, (*queue)(p)), 4<<10))
	p.plain, p.err = plain, err
	return p
}

// queue is where what the decoder takes goes too.
type queue peek

// Write keeps it.
func (q *queue) Write(b []byte) (int, error) {
	if _, err := q.raw.Push(b, false); err != nil {
		return 0, err //nolint:wrapcheck // a refusal is the answer
	}
	q.taken += int64(len(b))
	if err := q.memory.Want(min(q.taken, peekLag)); err != nil {
		return 0, err
	}
	q.queue = append(q.queue, b...)
	return len(b), nil
}

// Read gives encoded bytes that have been looked at.
func (p *peek) Read(b []byte) (int, error) {
	for {
		free := len(p.queue) - peekLag
		if p.done {
			free = len(p.queue)
		}
		if free > 0 {
			n := copy(b, p.queue[:min(free, len(b))])
			p.queue = p.queue[:copy(p.queue, p.queue[n:])]
			return n, nil
		}
		if p.err != nil {
			return 0, p.err
		}
		p.look()
	}
}

// look decodes and looks at a little more.
func (p *peek) look() {
	n, err := p.plain.Read(p.buf)
	p.decoded += int64(n)
	if p.decoded > bombSize && p.decoded > bombRatio*p.taken {
		p.err, p.queue = undecodable(errors.New("it grows too much")), nil
		return
	}
	last := errors.Is(err, io.EOF)
	_, refused := p.dec.Push(p.buf[:n], last)
	switch {
	case refused != nil:
		p.err, p.queue = refused, nil
	case last:
		p.finish()
	case err != nil:
		p.err, p.queue = undecodable(err), nil
	}
}

// finish takes what is behind the end of what was decoded: nobody should read it, and it is not passed on unseen.
func (p *peek) finish() {
	n, err := io.Copy(io.Discard, io.LimitReader(p.src, 1))
	switch {
	case err != nil:
		p.err, p.queue = err, nil
	case n > 0:
		p.err, p.queue = undecodable(errors.New("something follows its end")), nil
	default:
		p.done, p.err = true, io.EOF
		if p.end == nil {
			return
		}
		if refused := p.end(); refused != nil {
			p.done, p.err, p.queue = false, refused, nil
		}
	}
}

// Close closes the body.
func (p *peek) Close() error {
	p.memory.Free()
	return p.plain.Closing(p.src.Close)()
}

// undecodable refuses a body that is not what it says: nobody could read it, or somebody in another way.
func undecodable(err error) error {
	if _, ok := errors.AsType[*flow.Refusal](err); ok {
		return err
	}
	return &flow.Refusal{
		Status: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}, "X-Capsem-Rule": {"credential/encoding"}},
		Body: []byte(`{"error":"refused: the body is not in the encoding that it says","rule":"credential/encoding"}`),
		Rule: "credential/encoding", Reason: "the body is not in the encoding that it says",
	}
}
