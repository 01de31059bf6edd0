package gitwire

import (
	"errors"
	"io"
	"strings"
)

// maxFetch bounds what is read of a request for a pack.
const maxFetch = 1 << 20

// ReadFetch reads a request to git-upload-pack, of either protocol. have reports whether the client says that it has something already. raw is
// what was read; the rest follows. What is too long to be read whole counts as a clone.
func ReadFetch(src io.Reader) (have bool, raw []byte, err error) {
	r := NewReader(src, maxFetch)
	for {
		kind, data, err := r.Next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, ErrTooMuch):
			return false, r.Raw(), nil
		case err != nil:
			return false, r.Raw(), err
		case kind == Data && strings.HasPrefix(string(data), "have "):
			return true, r.Raw(), nil
		}
	}
}
