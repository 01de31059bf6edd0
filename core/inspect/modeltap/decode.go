package modeltap

import (
	"compress/zlib"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"capsem/core/detect/pipe"
)

// maxWindow bounds what a compressed body may make the decoder hold.
const maxWindow = 8 << 20

// decoder reads what was compressed; it is to be closed. ok is false for what is not known.
func decoder(encoding string, r io.Reader) (d io.ReadCloser, ok bool, err error) {
	encoding = strings.ToLower(strings.TrimSpace(encoding))
	plain, ok, err := decode(encoding, r)
	return pipe.Bound(encoding, plain), ok, err
}

func decode(encoding string, r io.Reader) (d io.Reader, ok bool, err error) {
	switch encoding {
	case "", "identity":
		return r, true, nil
	case "gzip", "x-gzip":
		return &lazy{open: func() (io.Reader, error) { return gzip.NewReader(r) }}, true, nil
	case "deflate":
		return &lazy{open: func() (io.Reader, error) { return zlib.NewReader(r) }}, true, nil
	case "br":
		return brotli.NewReader(r), true, nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, true, err //nolint:wrapcheck // by the caller
		}
		return z.IOReadCloser(), true, nil
	}
	return nil, false, nil
}

// lazy opens its reader when it is first read: opening waits for the first bytes.
type lazy struct {
	open func() (io.Reader, error)
	r    io.Reader
	err  error
}

// Read opens and reads.
func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil && l.err == nil {
		l.r, l.err = l.open()
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(p) //nolint:wrapcheck // an io.Reader hands errors through
}
