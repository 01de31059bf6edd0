package service

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/lifecycle"
	"capsem/core/paths"
)

const (
	// serviceLogTail is how much of the service's own log is shown, in bytes.
	serviceLogTail = 100 << 10
	// followTick is how often a log that is followed is looked at.
	followTick = 200 * time.Millisecond
)

// logDir is where the logs of a VM are, also of one that has died and was kept for them.
func (s *Service) logDir(id string) (paths.VM, *vm, error) {
	v, err := s.find(id)
	if err == nil {
		return v.view().dir, v, nil
	}
	if s.opts.failedDir(id) != "" {
		return s.opts.failed(id), nil, nil
	}
	return "", nil, err
}

// Logs returns the last lines of a VM's logs, all that is kept (up to 1 MiB each) when lines is 0.
func (s *Service) Logs(id string, lines int) (api.LogsReply, error) {
	dir, v, err := s.logDir(id)
	if err != nil {
		return api.LogsReply{}, err
	}
	reply := api.LogsReply{ProcessLogs: text(tail(dir.ProcessLog(), lines)), SerialLogs: text(tail(dir.SerialLog(), lines))}
	var why string
	if v != nil {
		why = v.view().lastError
	} else {
		why = strings.TrimSpace(tail(dir.Dir()+"/last_error", 0))
	}
	var b strings.Builder
	if why != "" {
		fmt.Fprintf(&b, "== last error\n%s\n", text(why))
	}
	fmt.Fprintf(&b, "== worker\n%s", ended(reply.ProcessLogs))
	fmt.Fprintf(&b, "== console\n%s", ended(reply.SerialLogs))
	reply.Logs = b.String()
	return reply, nil
}

// text makes JSON of what a guest may have written.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func ended(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// FollowLogs writes the last lines of a VM's logs to w, and then what is added, until the VM or ctx ends. flush is called when
// something was written.
func (s *Service) FollowLogs(ctx context.Context, id string, lines int, w io.Writer, flush func() error) error {
	dir, v, err := s.logDir(id)
	if err != nil {
		return err
	}
	files := []*followed{{head: "== worker\n", path: dir.ProcessLog()}, {head: "== console\n", path: dir.SerialLog()}}
	defer func() {
		for _, f := range files {
			f.close()
		}
	}()
	out := &sections{w: w}
	tick := time.NewTicker(followTick)
	defer tick.Stop()
	for {
		over := v == nil
		if v != nil {
			now := v.view()
			over = now.life == nil && now.state != lifecycle.Created
			files[0].path, files[1].path = now.dir.ProcessLog(), now.dir.SerialLog()
		}
		wrote := false
		for _, f := range files {
			n, err := f.more(out, lines)
			if err != nil {
				return err
			}
			wrote = wrote || n
		}
		if wrote {
			if err := flush(); err != nil {
				return err
			}
		}
		if over && !wrote { // all that was said before the end has been read
			return nil
		}
		if over {
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}

// sections writes a heading wherever the text goes over to another log.
type sections struct {
	w    io.Writer
	last *followed
}

// followed is one log that is followed. The file is opened once: persist renames its directory.
type followed struct {
	head, path string
	file       *os.File
	at         int64
}

func (f *followed) close() {
	if f.file != nil {
		_ = f.file.Close() // only read
	}
}

// more writes what has been added, the first time the last lines, and reports whether there was anything.
func (f *followed) more(out *sections, lines int) (bool, error) {
	var data []byte
	if f.file == nil {
		file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			return false, nil //nolint:nilerr // not there yet
		}
		f.file = file
		data, f.at = tailOf(file, lines)
	} else {
		var err error
		if data, err = f.added(); err != nil {
			return false, err
		}
		if len(data) == 0 {
			f.again()
		}
	}
	if len(data) == 0 {
		return false, nil
	}
	if out.last != f {
		data = append([]byte(f.head), data...)
		out.last = f
	}
	_, err := out.w.Write(data)
	return true, err //nolint:wrapcheck // an io.Writer hands errors through
}

// added reads what has been added.
func (f *followed) added() ([]byte, error) {
	buf := make([]byte, 64<<10)
	n, err := f.file.ReadAt(buf, f.at)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("follow log: %w", err)
	}
	if info, err := f.file.Stat(); err == nil && info.Size() < f.at {
		f.at = 0 // begun anew
	}
	f.at += int64(n)
	return buf[:n], nil
}

// again goes over to the file that has the log's name now, if the one that was read to its end has been put aside.
func (f *followed) again() {
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return // not there yet, or its directory has another name
	}
	was, err := f.file.Stat()
	is, err2 := file.Stat()
	if err != nil || err2 != nil || os.SameFile(was, is) {
		_ = file.Close() // nothing was written
		return
	}
	f.close()
	f.file, f.at = file, 0
}

// ServiceLogs is the end of the service's own log.
func (s *Service) ServiceLogs() string {
	data := tail(s.opts.Home.ServiceLog(), 0)
	if len(data) > serviceLogTail {
		data = data[len(data)-serviceLogTail:]
		if i := strings.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	return text(data)
}
