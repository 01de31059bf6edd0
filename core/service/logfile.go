package service

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// LogFile is a log of bounded size: when it is full it becomes PATH.1, in place of the one before, and is begun anew.
type LogFile struct {
	path string
	most int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenLog opens a log for appending, with mode 0600, that holds about most bytes, twice over.
func OpenLog(path string, most int64) (*LogFile, error) {
	l := &LogFile{path: path, most: most}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write adds one record.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(p)) > l.most {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err //nolint:wrapcheck // an io.Writer hands errors through
}

func (l *LogFile) rotate() error {
	// Somebody may have removed it or moved it away: there is nothing to keep then.
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotate log: %w", err)
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	return old.Close() //nolint:wrapcheck // cannot fail for a plain file, and is told if it does
}

// Close ends the log.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close() //nolint:wrapcheck // as above
}
