package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"capsem/core/fault"
)

// File is a file of a snapshot, open for reading. Whoever opened it closes it; until then its snapshot stays.
type File struct {
	io.Reader
	// Size is its length in bytes, Mode its permission bits.
	Size int64
	Mode uint32

	// unpin lets the snapshot go; the file stays.
	unpin func()
	close func() error
}

// Close ends the reading.
func (f *File) Close() error { return f.close() }

// OpenFile opens a file as it is in a snapshot. Its content was checked.
func (s *Store) OpenFile(ctx context.Context, checkpoint, path string) (*File, error) {
	clean, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	var out *File
	err = s.consistent(ctx, func() error {
		h, err := s.lookup(checkpoint)
		if err != nil {
			return err
		}
		unpin := sync.OnceFunc(s.pin(h))
		if out, err = s.openFile(ctx, h, clean, unpin); err != nil {
			unpin()
		}
		return err
	})
	return out, explain("open "+shown(clean), err)
}

func (s *Store) openFile(ctx context.Context, h header, path string, unpin func()) (*File, error) {
	m, err := s.manifest(h)
	if err != nil {
		return nil, err
	}
	e := m.find(path)
	if e == nil && path != "" {
		return nil, fault.New(fault.NotFound, "there is no %s in %s", shown(path), h.id())
	}
	if e == nil || e.kind != kindFile {
		return nil, fault.New(fault.Invalid, "%s is no file in %s", shown(path), h.id())
	}
	f, err := s.stored(ctx, e)
	if err != nil {
		if !s.current(h) {
			err = errors.Join(errReplaced, err)
		}
		return nil, err
	}
	once := sync.OnceValue(func() error {
		unpin()
		return f.Close()
	})
	return &File{Reader: f, Size: e.size, Mode: e.mode, unpin: unpin, close: once}, nil
}

// stored opens the content of a file in a snapshot, after checking it.
func (s *Store) stored(ctx context.Context, e *entry) (*os.File, error) {
	f, err := s.objects.open(e.hash)
	if err != nil {
		return nil, fmt.Errorf("content of %s: %w", shown(e.path), err)
	}
	st, err := statFD(int(f.Fd()))
	h := hash{}
	if err == nil {
		h, err = transfer(ctx, nil, f, st.size, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("content of %s: %w", shown(e.path), errors.Join(err, f.Close()))
	}
	if h != e.hash || st.size != e.size {
		return nil, fmt.Errorf("content of %s: %w", shown(e.path), errors.Join(s.objects.spoiled(e.hash), f.Close()))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("content of %s: %w", shown(e.path), errors.Join(err, f.Close()))
	}
	return f, nil
}
