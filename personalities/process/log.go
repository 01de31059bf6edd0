package process

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
)

// maxLog is the size, in bytes, at which the log becomes NAME.1 and is begun anew.
const maxLog = 4 << 20

// logFile is a log of bounded size in a directory that may be renamed at any time.
type logFile struct {
	dir  *os.Root
	name string
	most int64

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(dir, name string) (*logFile, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open VM directory: %w", err)
	}
	l := &logFile{dir: root, name: name, most: maxLog}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return l, nil
}

// open opens the log for appending and has the runtime's last words go there too.
func (l *logFile) open() error {
	f, err := l.dir.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		err = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write adds one record. A full log is begun anew; the one before is kept.
func (l *logFile) Write(p []byte) (int, error) {
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

func (l *logFile) rotate() error {
	// Somebody may have removed it or moved it away: there is nothing to keep then.
	if err := l.dir.Rename(l.name, l.name+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotate log: %w", err)
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	return old.Close() //nolint:wrapcheck // as above
}

// Close ends the log.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.file.Close(), l.dir.Close())
}
