//go:build linux

package procinfo

import (
	"bytes"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

const (
	// The bounds of a proto.ProcessClaim.
	maxName, maxText, maxParents = 64, 4 << 10, 16
	// maxEntries bounds the names read from one directory.
	maxEntries = 1 << 16
)

// processes lists the processes, in order.
func processes(root string) []int {
	var pids []int
	for _, name := range list(root) {
		if pid, ok := number(name); ok {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func number(name string) (int, bool) {
	n, err := strconv.ParseInt(name, 10, 32)
	return int(n), err == nil && n > 0
}

// holds reports whether a process has the socket open.
func holds(root string, pid int, inode uint32, deadline time.Time) bool {
	dir := filepath.Join(root, strconv.Itoa(pid), "fd")
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it has ended
	}
	defer unix.Close(fd)
	want := strconv.AppendUint([]byte("socket:["), uint64(inode), 10)
	want = append(want, ']')
	buf := make([]byte, len(want)+1)
	// The files opened last have the highest numbers.
	for i, name := range slices.Backward(entries(fd)) {
		if n, err := unix.Readlinkat(fd, name, buf); err == nil && bytes.Equal(buf[:n], want) {
			return true
		}
		if i%256 == 0 && time.Now().After(deadline) {
			return false
		}
	}
	return false
}

func list(dir string) []string {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return entries(fd)
}

// entries are the names in an open directory.
func entries(fd int) []string {
	var names []string
	buf := make([]byte, 8<<10)
	for len(names) < maxEntries {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], maxEntries, names)
	}
	return names
}

// describe reads who a process is, beyond its status. Everything in it is within the bounds of a claim, whatever the files say.
func describe(root string, pid int, own status, deadline time.Time) proto.ProcessClaim {
	dir := filepath.Join(root, strconv.Itoa(pid))
	c := proto.ProcessClaim{PID: int32(min(pid, math.MaxInt32)), Name: own.name} //nolint:gosec // bounded
	if time.Now().After(deadline) {
		return c
	}
	c.CommandLine = text(bytes.ReplaceAll(bytes.TrimRight(read(filepath.Join(dir, "cmdline"), maxText), "\x00"), []byte{0}, []byte{' '}), maxText)
	c.Exe = link(filepath.Join(dir, "exe"))
	parent := own.parent
	for parent > 0 && len(c.Parents) < maxParents && !time.Now().After(deadline) {
		above := statusOf(root, parent)
		if above.name == "" {
			break
		}
		c.Parents = append(c.Parents, above.name)
		parent = above.parent
	}
	return c
}

// status is what one file says of a process.
type status struct {
	// name is its short name, which may contain anything, parent the number of its parent.
	name   string
	parent int
	// life changes when the number goes to another process, and when the process becomes another program. Empty: not known.
	life string
}

func statusOf(root string, pid int) status {
	stat := read(filepath.Join(root, strconv.Itoa(pid), "stat"), 1024)
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return status{}
	}
	s := status{name: text(stat[open+1:end], maxName)}
	// " S 1234 ..." follows, as proc_pid_stat(5) has it: the state, the parent, and far behind the start and the stack.
	fields := strings.Fields(string(stat[end+1:]))
	const parent, started, stack = 1, 19, 25
	if len(fields) > parent {
		s.parent, _ = number(fields[parent])
	}
	if len(fields) > stack {
		s.life = strings.Join([]string{fields[parent], fields[started], fields[stack], s.name}, " ")
	}
	return s
}

func link(path string) string {
	buf := make([]byte, maxText)
	n, err := unix.Readlink(path, buf)
	if err != nil {
		return "" // a thread of the kernel
	}
	return text(buf[:n], maxText)
}

// text makes UTF-8 of bytes, in at most limit bytes of whole characters.
func text(b []byte, limit int) string {
	s := strings.ToValidUTF8(string(b), string(utf8.RuneError))
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// read returns the first bytes of a file. It bypasses os, which would first try to poll it.
func read(path string, limit int) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, limit)
	total := 0
	for total < limit {
		n, err := unix.Read(fd, buf[total:])
		if err != nil || n <= 0 {
			break
		}
		total += n
	}
	return buf[:total]
}
