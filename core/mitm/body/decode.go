package body

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// maxCodings is how many encodings a body may have, one over the other; maxHeader bounds the header that says so.
const maxCodings, maxHeader = 3, 256

// parse reads a Content-Encoding. Those that change nothing are left out.
func parse(header string) ([]string, error) {
	if len(header) > maxHeader {
		return nil, ErrEncoding
	}
	var out []string
	for part := range strings.SplitSeq(header, ",") {
		switch coding := strings.ToLower(strings.Trim(part, " \t")); coding {
		case "", "identity":
		case "gzip", "x-gzip", "deflate", "br", "zstd":
			out = append(out, coding)
		default:
			return nil, ErrEncoding
		}
	}
	if len(out) > maxCodings {
		return nil, ErrEncoding
	}
	return out, nil
}

// memory is how much decoders may keep: their windows, and what is on its way between them.
func memory(codings []string, window int) int64 {
	const between, small = 16 << 10, 64 << 10
	n := int64(maxQueue + between)
	for _, coding := range codings {
		if n += between; coding == "br" || coding == "zstd" {
			n += int64(window)
		} else {
			n += small
		}
	}
	return n
}

// decoder is what one encoding is read with; close frees it.
type decoder struct {
	io.Reader
	close func()
}

// layers puts decoders over each other, the last encoding first. It waits for the first bytes.
func layers(in io.Reader, codings []string, limits Limits) (out io.Reader, closeAll func(), err error) {
	var open []func()
	closeAll = func() {
		for _, c := range open {
			c()
		}
	}
	for _, coding := range slices.Backward(codings) {
		below := bufio.NewReader(in)
		if _, err := below.Peek(1); errors.Is(err, io.EOF) {
			return strings.NewReader(""), closeAll, nil // an answer to HEAD, say: nothing, whatever its encoding
		}
		d, err := newDecoder(below, coding, limits)
		if err != nil {
			return nil, closeAll, err
		}
		if d.close != nil {
			open = append(open, d.close)
		}
		in = &bounded{r: d.Reader, below: below, left: limits.Decoded + 1} // one more, so that the sink's own bound tells
	}
	return in, closeAll, nil
}

func newDecoder(in *bufio.Reader, coding string, limits Limits) (decoder, error) {
	switch coding {
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(in)
		return decoder{Reader: z}, failure(err)
	case "deflate":
		return newDeflate(in)
	case "br":
		if err := brotliWindow(in, limits.Window); err != nil {
			return decoder{}, err
		}
		return decoder{Reader: brotli.NewReader(in)}, nil
	case "zstd":
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(limits.Window, zstd.MinWindowSize))), zstd.WithDecoderMaxMemory(uint64(limits.Decoded)+1)) //nolint:gosec // positive
		if err != nil {
			return decoder{}, failure(err)
		}
		return decoder{z, z.Close}, nil
	}
	return decoder{}, ErrEncoding
}

// newDeflate reads what the standard calls deflate, zlib's format, or what some take it for, without zlib's head.
func newDeflate(in *bufio.Reader) (decoder, error) {
	head, err := in.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return decoder{}, failure(err)
	}
	if len(head) == 2 && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		z, err := zlib.NewReader(in)
		return decoder{Reader: z}, failure(err)
	}
	return decoder{Reader: flate.NewReader(in)}, nil
}

// brotliWindow refuses a stream whose window is too large (RFC 7932, section 9.1).
func brotliWindow(in *bufio.Reader, most int) error {
	head, err := in.Peek(1)
	if err != nil {
		return failure(err)
	}
	bits := 16
	if head[0]&1 != 0 {
		switch low, high := int(head[0]>>1&7), int(head[0]>>4&7); {
		case low != 0:
			bits = 17 + low
		case high != 0:
			bits = 8 + high
		default:
			bits = 17
		}
	}
	if 1<<bits > most {
		return ErrWindow
	}
	return nil
}

// bounded is the output of one decoder. At its end nothing may be left below.
type bounded struct {
	r     io.Reader
	below *bufio.Reader
	left  int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, ErrTooLarge
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if _, more := b.below.Peek(1); more == nil {
			return n, ErrTrailing
		} else if !errors.Is(more, io.EOF) {
			return n, more //nolint:wrapcheck // of this package
		}
		return n, io.EOF
	}
	return n, failure(err)
}

// own are errors that say what happened already.
var own = []error{ErrEncoding, ErrCorrupt, ErrTrailing, ErrTooLarge, ErrBomb, ErrWindow, ErrSlow, ErrCut}

// failure tells apart what a decoder found wrong from what reading below it failed with.
func failure(err error) error {
	if err == nil {
		return nil
	}
	if _, below := errors.AsType[*sourceError](err); below {
		return err
	}
	for _, e := range own {
		if errors.Is(err, e) {
			return err
		}
	}
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return ErrWindow
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return ErrTooLarge
	}
	return fmt.Errorf("%w: %.100s", ErrCorrupt, err.Error()) // not wrapped: an early EOF is no end
}
