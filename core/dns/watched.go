package dns

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxWatched bounds the files of the host that are read.
const maxWatched = 1 << 20

// watched is a file that is read again when it has changed. It looks at most once a second.
type watched[T any] struct {
	path  string
	parse func(text string) T
	now   func() time.Time

	mu     sync.Mutex
	looked time.Time
	seen   os.FileInfo
	value  T
	err    error
	// generation counts how often the file was read.
	generation uint64
}

// get gives the file's value, and a number that is another one when the value may be.
func (w *watched[T]) get() (value T, generation uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if !w.looked.IsZero() && now.Sub(w.looked) < time.Second && !now.Before(w.looked) {
		return w.value, w.generation, w.err
	}
	w.looked = now
	info, err := os.Stat(w.path)
	if err == nil && w.seen != nil && w.err == nil && same(info, w.seen) {
		return w.value, w.generation, nil
	}
	var text string
	if err == nil {
		text, err = readText(w.path)
	}
	w.seen, w.err = info, err
	if err != nil {
		var none T
		w.value, w.err = none, fmt.Errorf("read names of the host: %w", err)
		return w.value, w.generation, w.err
	}
	w.value = w.parse(text)
	w.generation++
	return w.value, w.generation, nil
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err //nolint:wrapcheck // by the caller
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxWatched))
	return string(text), err //nolint:wrapcheck // by the caller
}
