package share_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share"
	"capsem/core/share/wire"
)

// badNames name nothing that a guest may name.
var badNames = []string{"", ".", "..", "../outside/secret", "/etc/passwd", "a/b", "..\x00", "/", strings.Repeat("n", 256)}

func TestBadNamesAreRefusedInEveryOperation(t *testing.T) {
	k := newKernel(t, nil)
	write(t, k.host+"/f", "x")
	node := k.mustLookup(wire.RootID, "f")
	for _, name := range badNames {
		for what, try := range map[string]func() (unix.Errno, []byte){
			"lookup": func() (unix.Errno, []byte) { return k.call(wire.OpLookup, 1, text(name)) },
			"mkdir":  func() (unix.Errno, []byte) { return k.call(wire.OpMkdir, 1, join(num32(0o755, 0), text(name))) },
			"mknod": func() (unix.Errno, []byte) {
				return k.call(wire.OpMknod, 1, join(num32(0o100644, 0, 0, 0), text(name)))
			},
			"create":  func() (unix.Errno, []byte) { return k.call(wire.OpCreate, 1, join(num32(2, 0o644, 0, 0), text(name))) },
			"symlink": func() (unix.Errno, []byte) { return k.call(wire.OpSymlink, 1, text(name, "t")) },
			"unlink":  func() (unix.Errno, []byte) { return k.call(wire.OpUnlink, 1, text(name)) },
			"rmdir":   func() (unix.Errno, []byte) { return k.call(wire.OpRmdir, 1, text(name)) },
			"link":    func() (unix.Errno, []byte) { return k.call(wire.OpLink, 1, join(num64(node), text(name))) },
			"rename":  func() (unix.Errno, []byte) { return k.call(wire.OpRename, 1, join(num64(1), text("f", name))) },
			"rename from": func() (unix.Errno, []byte) {
				return k.call(wire.OpRename2, 1, join(num64(1), num32(0, 0), text(name, "g")))
			},
		} {
			if errno, _ := try(); errno != unix.EINVAL && errno != unix.ENAMETOOLONG {
				t.Errorf("%s of %q: %v", what, name, errno)
			}
		}
	}
	if errno, _ := k.call(wire.OpLookup, 1, []byte("no end")); errno != unix.EINVAL {
		t.Error("a name without an end:", errno)
	}
	if errno, _ := k.call(wire.OpLookup, 1, []byte("two\x00names\x00")); errno != unix.EINVAL {
		t.Error("two names for one:", errno)
	}
}

func TestSymlinksAreNeverFollowedOnTheHost(t *testing.T) {
	k := newKernel(t, nil)
	if errno, _ := k.call(wire.OpSymlink, 1, text("l", "../outside")); errno != 0 {
		t.Fatal(errno)
	}
	if errno, _ := k.call(wire.OpSymlink, 1, text("s", "../outside/secret")); errno != 0 {
		t.Fatal(errno)
	}
	dir, file := k.mustLookup(1, "l"), k.mustLookup(1, "s")
	for what, errno := range map[string]unix.Errno{
		"lookup":     first(k.lookup(dir, "secret")),
		"create":     first(k.call(wire.OpCreate, dir, join(num32(1, 0o644, 0, 0), text("made")))),
		"mkdir":      first(k.call(wire.OpMkdir, dir, join(num32(0o755, 0), text("made")))),
		"unlink":     first(k.call(wire.OpUnlink, dir, text("secret"))),
		"rename out": first(k.call(wire.OpRename, 1, join(num64(dir), text("s", "s")))),
		"link out":   first(k.call(wire.OpLink, dir, join(num64(file), text("made")))),
		"opendir":    first(k.call(wire.OpOpendir, dir, num32(0, 0))),
		"open":       first(k.call(wire.OpOpen, file, num32(0, 0))),
		"open over":  first(k.call(wire.OpCreate, 1, join(num32(1|unix.O_TRUNC, 0o644, 0, 0), text("s")))),
		"truncate":   first(k.call(wire.OpSetattr, file, setattr(wire.SetSize, 0, 0))),
		"chmod":      first(k.call(wire.OpSetattr, file, setattr(wire.SetMode, 0, 0o777))),
		"xattr":      first(k.call(wire.OpSetxattr, file, join(num32(1, 0), text("user.a"), []byte("v")))),
	} {
		if errno == 0 {
			t.Errorf("%s went through a link", what)
		}
	}
	if st, err := os.Stat(k.host + "/../outside/secret"); err != nil || st.Mode().Perm() != 0o644 {
		t.Error("the secret's mode changed")
	}
}

func first[T any](errno unix.Errno, _ T) unix.Errno { return errno }

func setattr(valid uint32, size uint64, mode uint32) []byte {
	b := make([]byte, 88)
	binary.LittleEndian.PutUint32(b, valid)
	binary.LittleEndian.PutUint64(b[16:], size)
	binary.LittleEndian.PutUint32(b[68:], mode)
	return b
}

// Someone on the host, or in the guest through another name, swaps a directory for a link to outside while requests run.
func TestDirectoriesSwappedForLinksLeadNowhere(t *testing.T) {
	k := newKernel(t, nil)
	must(t, os.Mkdir(k.host+"/d", 0o755))
	write(t, k.host+"/d/secret", "inside")
	must(t, os.Symlink("../outside", k.host+"/link"))
	dir := k.mustLookup(1, "d")
	file := k.mustLookup(dir, "secret")
	var stop atomic.Bool
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, k.host+"/d", unix.AT_FDCWD, k.host+"/link", unix.RENAME_EXCHANGE)
		}
	})
	defer swaps.Wait()
	defer stop.Store(true)
	for i := range 1500 {
		name := text(fmt.Sprint("made", i))
		k.call(wire.OpCreate, dir, join(num32(1, 0o644, 0, 0), name))
		k.call(wire.OpMkdir, dir, join(num32(0o755, 0), name))
		k.call(wire.OpUnlink, dir, name)
		k.call(wire.OpSetattr, file, setattr(wire.SetSize|wire.SetMode, 3, 0o600))
		if errno, b := k.call(wire.OpOpen, file, num32(unix.O_RDWR, 0)); errno == 0 {
			fh := binary.LittleEndian.Uint64(b)
			if errno, b := k.call(wire.OpRead, file, join(num64(fh, 0), num32(100, 0), num64(0, 0))); errno == 0 && strings.Contains(string(b), "secret") {
				t.Fatal("read the secret")
			}
			k.call(wire.OpRelease, file, join(num64(fh), num32(0, 0), num64(0)))
		}
		if errno, b := k.call(wire.OpGetattr, dir, num32(0, 0, 0, 0)); errno == 0 {
			if mode := binary.LittleEndian.Uint32(b[16+60:]); mode&unix.S_IFMT != unix.S_IFDIR {
				t.Fatalf("the directory is a %o", mode)
			}
		}
	}
	if st, err := os.Stat(k.host + "/../outside/secret"); err != nil || st.Mode().Perm() != 0o644 {
		t.Error("the secret's mode changed")
	}
}

func TestForgedNodesAndHandlesAreRefused(t *testing.T) {
	k := newKernel(t, nil)
	write(t, k.host+"/f", "x")
	write(t, k.host+"/g", "y")
	f, g := k.mustLookup(1, "f"), k.mustLookup(1, "g")
	for _, node := range []uint64{0, 99, math.MaxUint64, 1 << 63} {
		for _, op := range []wire.Op{wire.OpGetattr, wire.OpOpen, wire.OpOpendir, wire.OpReadlink, wire.OpLookup, wire.OpUnlink} {
			body := num32(0, 0, 0, 0)
			switch op {
			case wire.OpLookup, wire.OpUnlink:
				body = text("f")
			case wire.OpReadlink:
				body = nil
			case wire.OpOpen:
				body = num32(0, 0)
			}
			if errno, _ := k.call(op, node, body); errno != unix.ESTALE {
				t.Errorf("op %d of node %d: %v", op, node, errno)
			}
		}
	}
	errno, b := k.call(wire.OpOpen, f, num32(0, 0))
	if errno != 0 {
		t.Fatal(errno)
	}
	fh := binary.LittleEndian.Uint64(b)
	rd := func(fh uint64) []byte { return join(num64(fh, 0), num32(4096, 0), num64(0, 0)) }
	for what, errno := range map[string]unix.Errno{
		"a handle of another node":   first(k.call(wire.OpRead, g, rd(fh))),
		"a handle that is not":       first(k.call(wire.OpRead, f, rd(fh+1))),
		"a file read as a directory": first(k.call(wire.OpReaddir, f, rd(fh))),
		"a write to what is read":    first(k.call(wire.OpWrite, f, join(num64(fh, 0), num32(1, 0), num64(0, 0), []byte("z")))),
		"a release of another node":  first(k.call(wire.OpRelease, g, join(num64(fh), num32(0, 0), num64(0)))),
	} {
		if errno != unix.EBADF {
			t.Errorf("%s: %v", what, errno)
		}
	}
	// More is forgotten than was looked up, and then used.
	k.send(wire.OpForget, f, num64(math.MaxUint64))
	k.send(wire.OpForget, 1, num64(math.MaxUint64))
	k.send(wire.OpBatchForget, 0, join(num32(math.MaxUint32, 0), num64(g, 1, g, 1, 77, 1)))
	if errno, _ := k.call(wire.OpGetattr, g, num32(0, 0, 0, 0)); errno != unix.ESTALE {
		t.Error("forgotten, but there:", errno)
	}
	if errno, _ := k.call(wire.OpGetattr, 1, num32(0, 0, 0, 0)); errno != 0 {
		t.Error("the root was forgotten:", errno)
	}
}

func TestImpossibleNumbersAreRefused(t *testing.T) {
	k := newKernel(t, nil)
	write(t, k.host+"/f", "x")
	f := k.mustLookup(1, "f")
	_, b := k.call(wire.OpOpen, f, num32(unix.O_RDWR, 0))
	fh := binary.LittleEndian.Uint64(b)
	const huge = math.MaxUint64
	for what, errno := range map[string]unix.Errno{
		"read too much":      first(k.call(wire.OpRead, f, join(num64(fh, 0), num32(1<<30, 0), num64(0, 0)))),
		"read too far":       first(k.call(wire.OpRead, f, join(num64(fh, huge), num32(1, 0), num64(0, 0)))),
		"write more than is": first(k.call(wire.OpWrite, f, join(num64(fh, 0), num32(5, 0), num64(0, 0), []byte("z")))),
		"write too far":      first(k.call(wire.OpWrite, f, join(num64(fh, huge), num32(1, 0), num64(0, 0), []byte("z")))),
		"fallocate":          first(k.call(wire.OpFallocate, f, join(num64(fh, huge, huge), num32(0, 0)))),
		"collapse":           first(k.call(wire.OpFallocate, f, join(num64(fh, 0, 4096), num32(8, 0)))),
		"seek":               first(k.call(wire.OpLseek, f, join(num64(fh, huge), num32(3, 0)))),
		"seek to the end":    first(k.call(wire.OpLseek, f, join(num64(fh, 0), num32(2, 0)))),
		"copy":               first(k.call(wire.OpCopyRange, f, num64(fh, huge, f, fh, huge, huge, 0))),
		"size":               first(k.call(wire.OpSetattr, f, setattr(wire.SetSize, huge, 0))),
		"cut short":          first(k.call(wire.OpSetattr, f, make([]byte, 87))),
		"xattr":              first(k.call(wire.OpSetxattr, f, join(num32(1<<20, 0), text("user.a")))),
		"whiteout":           first(k.call(wire.OpRename2, 1, join(num64(1), num32(4, 0), text("f", "g")))),
		"device":             first(k.call(wire.OpMknod, 1, join(num32(unix.S_IFCHR|0o666, 0x103, 0, 0), text("null")))),
		"unknown":            first(k.call(wire.Op(4000), 1, nil)),
	} {
		if errno == 0 {
			t.Error(what, "is accepted")
		}
	}
	if read(t, k.host+"/f") != "x" {
		t.Error("changed")
	}
}

func TestMessagesOfWrongSizesEndTheSession(t *testing.T) {
	for what, frame := range map[string][]byte{
		"too large":        {0xff, 0xff, 0xff, 0xff},
		"too small":        {0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8},
		"another length":   join([]byte{0, 0, 0, 40}, num32(41, 3), make([]byte, 32)),
		"extensions > all": join([]byte{0, 0, 0, 40}, num32(40, 3), make([]byte, 28), []byte{9, 0, 0, 0}),
	} {
		t.Run(what, func(t *testing.T) {
			k := newKernel(t, nil)
			if _, err := k.conn.Write(frame); err != nil {
				t.Fatal(err)
			}
			if n, err := k.conn.Read(make([]byte, 1)); err == nil {
				t.Error("goes on:", n)
			}
			k.dial() // the server is well
		})
	}
}

func TestFloodsDoNotGrowMemory(t *testing.T) {
	k := newKernel(t, func(c *share.Config) { c.Quota = share.Quota{Nodes: 1000, Handles: 100, Watches: 50} })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 3000 {
		errno, b := k.call(wire.OpMkdir, 1, join(num32(0o755, 0), text(fmt.Sprint("d", i))))
		if errno == 0 {
			node := binary.LittleEndian.Uint64(b)
			k.call(wire.OpOpendir, node, num32(0, 0))
			k.call(wire.OpMkdir, node, join(num32(0o755, 0), text("x")))
		}
		k.call(wire.OpTmpfile, 1, join(num32(2, 0o600, 0, 0), text("x")))
	}
	st := k.server.Stats()
	if st.Nodes > 1000 || st.Handles > 100 || st.Watches > 50 {
		t.Errorf("%+v", st)
	}
	// Names of one file, each looked up; nothing of them may stay beyond a few.
	write(t, k.host+"/one", "")
	for i := range 2000 {
		must(t, os.Link(k.host+"/one", fmt.Sprintf("%s/link%d", k.host, i)))
		_, _ = k.lookup(1, fmt.Sprint("link", i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes more", grown)
	}
	if state, err := k.server.Save(t.Context()); err != nil || len(state) > 1<<20 {
		t.Errorf("state of %d bytes: %v", len(state), err)
	}
}

func TestMakingMoreThanTheGuestMayKnowMakesNothing(t *testing.T) {
	k := newKernel(t, func(c *share.Config) { c.Quota.Nodes = 2 })
	if errno, _ := k.call(wire.OpMkdir, 1, join(num32(0o755, 0), text("a"))); errno != 0 {
		t.Fatal(errno)
	}
	for what, errno := range map[string]unix.Errno{
		"mkdir":  first(k.call(wire.OpMkdir, 1, join(num32(0o755, 0), text("b")))),
		"create": first(k.call(wire.OpCreate, 1, join(num32(2, 0o644, 0, 0), text("c")))),
	} {
		if errno != unix.EMFILE {
			t.Errorf("%s: %v", what, errno)
		}
	}
	if l, err := os.ReadDir(k.host); err != nil || len(l) != 1 {
		t.Error(l, err)
	}
}

// The requests of a fuzzer go to one server; none may end the session, reach outside or be left without an answer.
func FuzzRequests(f *testing.F) {
	ops := []wire.Op{
		1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 34, 35, 38, 43,
		44, 45, 46, 47, 51, 52, 99,
	}
	for i := range ops {
		f.Add(uint8(i), uint64(1), text("name"), uint64(3), text("f"))
		f.Add(uint8(i), uint64(2), setattr(math.MaxUint32, 1<<40, 0xffff), uint64(2), num64(1, 2, 3, 4, 5, 6, 7))
	}
	k := newKernel(f, func(c *share.Config) {
		c.Quota = share.Quota{Bytes: 16 << 20, Handles: 64, Nodes: 256, Watches: 16}
	})
	f.Fuzz(func(t *testing.T, op uint8, node uint64, body []byte, node2 uint64, body2 []byte) {
		if len(body) > 100<<10 || len(body2) > 100<<10 {
			return
		}
		k.t = t
		k.call(ops[int(op)%len(ops)], node, body)
		k.send(wire.OpBatchForget, node, body2)
		k.send(wire.OpForget, node2, body)
		k.call(ops[(int(op)+7)%len(ops)], node2, body2)
		if errno, _ := k.call(wire.OpGetattr, 1, num32(0, 0, 0, 0)); errno != 0 {
			t.Fatal("the root:", errno)
		}
	})
}

func FuzzState(f *testing.F) {
	k := newKernel(f, nil)
	write(f, k.host+"/f", "x")
	node := k.mustLookup(1, "f")
	k.call(wire.OpOpen, node, num32(2, 0))
	k.call(wire.OpOpendir, 1, num32(0, 0))
	state, err := k.server.Save(f.Context())
	must(f, err)
	f.Add(state, false)
	f.Add(state, true)
	f.Fuzz(func(t *testing.T, state []byte, copied bool) {
		s, err := share.New(share.Config{Root: k.host, State: state, Copied: copied})
		if err == nil {
			must(t, s.Close())
		}
	})
}
