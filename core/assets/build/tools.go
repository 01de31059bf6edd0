package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"capsem/core/fault"
)

// termTime is how long a tool may take to end when the build is given up; mmdebstrap unmounts things then.
const termTime = 20 * time.Second

// packageOf names the Debian package of each tool.
var packageOf = map[string]string{
	"mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "mkfs.erofs": "erofs-utils", "dpkg-deb": "dpkg", "arch-test": "arch-test",
}

func needTools(tools ...string) error {
	var missing, packages []string
	for _, t := range tools {
		if _, err := lookTool(t); err != nil {
			missing, packages = append(missing, t), append(packages, packageOf[t])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.New(fault.Unavailable, "not installed: %s", strings.Join(missing, ", ")).
		WithHint("install them, for example: apt install %s", strings.Join(packages, " "))
}

func lookTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path, err := exec.LookPath("/usr/sbin/" + name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}

// tool makes a command of a process group of its own, which is ended as a whole when ctx ends.
func tool(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := lookTool(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.Itoa(epoch), "LC_ALL=C.UTF-8", "TZ=UTC", "DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = childAttr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = termTime
	return cmd, nil
}

// logged is what a tool says: each line goes to a function, the last ones are kept for an error.
type logged struct {
	line func(string)

	mu   sync.Mutex
	last []string
	part bytes.Buffer
}

// Write takes output in pieces of any size.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range p {
		if b != '\n' && b != '\r' && l.part.Len() < 4096 {
			l.part.WriteByte(b)
			continue
		}
		text := strings.TrimSpace(l.part.String())
		l.part.Reset()
		if text == "" {
			continue
		}
		if l.last = append(l.last, text); len(l.last) > 15 {
			l.last = l.last[1:]
		}
		if l.line != nil {
			l.line(text)
		}
	}
	return len(p), nil
}

func (l *logged) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}

// failed makes an error of a tool's end, with its last words.
func failed(ctx context.Context, cmd *exec.Cmd, err error, out *logged) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", filepath.Base(cmd.Path), context.Cause(ctx))
	}
	code := fault.Internal
	words := out.tail()
	if strings.Contains(words, "No space left") {
		code = fault.NoSpace
	}
	return fault.Wrap(err, code, "%s failed (%s): %s", filepath.Base(cmd.Path), err, words)
}

// runTool runs a tool to its end.
func runTool(ctx context.Context, line func(string), name string, args ...string) error {
	cmd, err := tool(ctx, name, args...)
	if err != nil {
		return err
	}
	out := &logged{line: line}
	cmd.Stdout, cmd.Stderr = out, out
	return failed(ctx, cmd, cmd.Run(), out)
}

// pipeline runs one tool, changes what it writes to standard output, and gives that to another tool.
func pipeline(ctx context.Context, from, to *exec.Cmd, line func(string), change func(w io.Writer, r io.Reader) error) error {
	fromLog, toLog := &logged{line: line}, &logged{}
	from.Stderr = fromLog
	to.Stdout, to.Stderr = toLog, toLog
	out, err := from.StdoutPipe()
	if err != nil {
		return fmt.Errorf("connect tools: %w", err)
	}
	in, err := to.StdinPipe()
	if err != nil {
		return fmt.Errorf("connect tools: %w", err)
	}
	if err := to.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(to.Path), err)
	}
	if err := from.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", filepath.Base(from.Path), err), in.Close(), to.Wait())
	}
	w := bufio.NewWriterSize(in, 1<<20)
	changeErr := change(w, bufio.NewReaderSize(out, 1<<20))
	if changeErr == nil {
		changeErr = w.Flush()
	}
	_, _ = io.Copy(io.Discard, out) // what follows the archive's end, so that the tool is not broken off
	fromErr := failed(ctx, from, from.Wait(), fromLog)
	if fromErr != nil || changeErr != nil {
		_ = to.Cancel() // its output is not wanted any more
	}
	closeErr := in.Close()
	toErr := failed(ctx, to, to.Wait(), toLog)
	for _, err := range []error{fromErr, changeErr, toErr, closeErr} { // the first in the line is the cause
		if err != nil {
			return err
		}
	}
	return nil
}
