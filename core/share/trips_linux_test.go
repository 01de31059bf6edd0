package share_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// tap counts requests by their operation.
type tap struct {
	mu  sync.Mutex
	ops map[wire.Op]int
}

type tapped struct {
	net.Conn
	tap *tap
}

// Write is of whole frames: so the guest side sends them.
func (c *tapped) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	if c.tap.ops == nil {
		c.tap.ops = map[wire.Op]int{}
	}
	for rest := b; len(rest) >= wire.FrameHead+wire.InSize; {
		size := wire.FrameHead + int(binary.BigEndian.Uint32(rest))
		if size > len(rest) {
			break // the handshake
		}
		if head, body, err := wire.ParseRequest(rest[wire.FrameHead:size]); err == nil {
			if w, ok := wire.ParseWrite(body); head.Op != wire.OpWrite || !ok || !w.Behind {
				c.tap.ops[head.Op]++
			}
		}
		rest = rest[size:]
	}
	return c.Conn.Write(b)
}

var opNames = map[wire.Op]string{
	wire.OpLookup: "LOOKUP", wire.OpGetattr: "GETATTR", wire.OpSetattr: "SETATTR", wire.OpOpen: "OPEN", wire.OpRead: "READ", wire.OpWrite: "WRITE",
	wire.OpRelease: "RELEASE", wire.OpFlush: "FLUSH", wire.OpCreate: "CREATE", wire.OpGetxattr: "GETXATTR", wire.OpOpendir: "OPENDIR",
	wire.OpReaddir: "READDIR", wire.OpReaddirplus: "READDIRPLUS", wire.OpReleasedir: "RELEASEDIR", wire.OpUnlink: "UNLINK",
	wire.OpMkdir: "MKDIR", wire.OpRename: "RENAME", wire.OpRename2: "RENAME2", wire.OpStatfs: "STATFS", wire.OpFsync: "FSYNC",
}

// waited returns what a program waits for: everything but what the kernel does on its own, after the program went on.
func (t *tap) waited() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, op := range slices.Sorted(maps.Keys(t.ops)) {
		if op.NoReply() || op == wire.OpRelease || op == wire.OpReleasedir {
			continue
		}
		name := opNames[op]
		if name == "" {
			name = fmt.Sprint("op ", op)
		}
		if n := t.ops[op]; n > 1 {
			name = fmt.Sprint(n, " ", name)
		}
		out = append(out, name)
	}
	t.ops = nil
	return strings.Join(out, ", ")
}

// What the kernel knows of names and attributes holds for a second or so: on a busy machine it may ask again within one step. So the
// least of some tries counts.
func TestProgramsWaitForTheHostNoMoreOftenThanTheyMust(t *testing.T) {
	var wrong []string
	for range 4 {
		if wrong = tooManyTrips(t); len(wrong) == 0 {
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

func statOnce(path string) {
	var st unix.Stat_t
	_ = unix.Stat(path, &st)
}

// tooManyTrips says which steps waited for the host more often than they must.
func tooManyTrips(t *testing.T) (wrong []string) {
	t.Helper()
	r := newRig(t, nil)
	must(t, os.Mkdir(r.in("d"), 0o755))
	write(t, r.in("d", "first"), "x") // once in a mount the kernel asks for what is not implemented
	must(t, os.MkdirAll(r.on("new", "sub"), 0o755))
	write(t, r.on("new", "sub", "f"), "of the host")
	settle := func() {
		<-time.After(250 * time.Millisecond) // what the host tells of by itself has come
		r.tap.waited()
	}
	const depends, shortValid = "what this kernel likes", time.Second
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"echo x > newfile", func() { write(t, r.in("d", "a"), "x") }, depends},
		{"stat newfile", func() { statOnce(r.in("d", "a")) }, depends},
		{"stat newfile again", func() { statOnce(r.in("d", "a")) }, ""},
		{"cat newfile", func() { read(t, r.in("d", "a")) }, "OPEN, READ"},
		{"cat newfile again", func() { read(t, r.in("d", "a")) }, depends},
		{"stat newfile after", func() { statOnce(r.in("d", "a")) }, ""},
		{"echo y > newfile", func() { write(t, r.in("d", "a"), "y") }, depends},
		{"echo z >> newfile", func() {
			f, err := os.OpenFile(r.in("d", "a"), os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteString("z")
			must(t, err)
			must(t, f.Close())
		}, "OPEN"},
		{"cat a file of the host", func() { read(t, r.in("new", "sub", "f")) }, "3 LOOKUP, OPEN, READ"},
		{"stat of it", func() { statOnce(r.in("new", "sub", "f")) }, depends},
		{"ls", func() { _, _ = os.ReadDir(r.in("new", "sub")) }, depends},
		{"ls again", func() { _, _ = os.ReadDir(r.in("new", "sub")) }, "OPENDIR"},
		{"echo x > a, b, c in turn", func() {
			for _, name := range []string{"k", "l", "m"} {
				write(t, r.in("d", name), "x")
			}
		}, "3 CREATE"},
		{"mkdir in a new directory", func() { must(t, os.MkdirAll(r.in("d", "p", "q"), 0o755)) }, "2 MKDIR"},
		{"stat in a directory that the guest made", func() { statOnce(r.in("d", "never")) }, ""},
		{"stat of the directory", func() { statOnce(r.in("new", "sub", ".")) }, depends}, // listing has changed its times
		{"stat of what is not there", func() { statOnce(r.in("new", "sub", "missing")) }, "LOOKUP"},
		{"stat of what is not there again", func() { statOnce(r.in("new", "sub", "missing")) }, ""},
		{"stat of what is not there, later", func() { <-time.After(2 * shortValid); r.tap.waited(); statOnce(r.in("new", "sub", "missing")) }, ""},
		{"rename", func() { must(t, os.Rename(r.in("d", "a"), r.in("d", "b"))) }, depends},
		{"rm", func() { must(t, unix.Unlink(r.in("d", "b"))) }, depends},
		{"mkdir", func() { must(t, unix.Mkdir(r.in("d", "s"), 0o755)) }, depends},
	} {
		settle()
		step.do()
		got := r.tap.waited()
		t.Logf("%-36s %s", step.what, got)
		if step.want != depends && got != step.want {
			wrong = append(wrong, fmt.Sprintf("%s: waits for %q, not %q", step.what, got, step.want))
		}
	}
	return wrong
}
