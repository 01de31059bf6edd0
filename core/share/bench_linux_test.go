package share_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share"
	"capsem/core/share/wire"
)

// The same work in the shared directory and in a plain one.
func BenchmarkShare(b *testing.B) {
	needMount(b)
	for _, where := range []string{"plain", "shared"} {
		dir := b.TempDir()
		if where == "shared" {
			dir = startRig(b, dir, nil).guest
		}
		b.Run("write/"+where, func(b *testing.B) { benchWrite(b, dir) })
		b.Run("read/"+where, func(b *testing.B) { benchRead(b, dir) })
		b.Run("create/"+where, func(b *testing.B) { benchCreate(b, dir) })
		b.Run("stat/"+where, func(b *testing.B) { benchStat(b, dir) })
	}
}

const benchSize = 64 << 20

func benchWrite(b *testing.B, dir string) {
	data := make([]byte, 1<<20)
	b.SetBytes(benchSize)
	for b.Loop() {
		f, err := os.Create(dir + "/w")
		must(b, err)
		for range benchSize / len(data) {
			_, err := f.Write(data)
			must(b, err)
		}
		must(b, f.Close())
	}
}

// benchRead drops what the guest has cached before each round.
func benchRead(b *testing.B, dir string) {
	buf := make([]byte, 1<<20)
	b.SetBytes(benchSize)
	for b.Loop() {
		f, err := os.Open(dir + "/w")
		must(b, err)
		must(b, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		must(b, err)
		must(b, f.Close())
	}
}

func benchCreate(b *testing.B, dir string) {
	must(b, os.MkdirAll(dir+"/c", 0o755))
	i := 0
	for b.Loop() {
		must(b, os.WriteFile(fmt.Sprint(dir, "/c/", i), []byte("small"), 0o644))
		i++
	}
	must(b, os.RemoveAll(dir+"/c"))
}

func benchStat(b *testing.B, dir string) {
	const n = 1000
	must(b, os.MkdirAll(dir+"/s", 0o755))
	for i := range n {
		write(b, fmt.Sprint(dir, "/s/", i), "")
	}
	i := 0
	for b.Loop() {
		_, err := os.Lstat(fmt.Sprint(dir, "/s/", i%n))
		must(b, err)
		i++
	}
}

// What the host does for one small file: the requests of echo x > file, stat file, cat file and rm file, without a kernel.
func BenchmarkSmallFiles(b *testing.B) {
	k := newKernel(b, func(c *share.Config) { c.Events = func(share.Event) {}; c.Quota.Bytes = 1 << 40 })
	data := []byte("small")
	b.ReportAllocs()
	for b.Loop() {
		name := text("file")
		k.call(wire.OpLookup, 1, name)
		_, made := k.call(wire.OpCreate, 1, join(num32(unix.O_WRONLY, 0o644, 0, 0), name))
		node, fh := made[:8], made[wire.EntrySize:wire.EntrySize+8]
		id := binary.LittleEndian.Uint64(node)
		k.call(wire.OpWrite, id, join(fh, num64(0), num32(uint32(len(data)), 0), num64(0, 0), data))
		k.call(wire.OpRelease, id, join(fh, num32(0, 0), num64(0)))
		k.call(wire.OpGetattr, id, num32(0, 0, 0, 0))
		_, open := k.call(wire.OpOpen, id, num32(0, 0))
		k.call(wire.OpRead, id, join(open[:8], num64(0), num32(4096, 0), num64(0, 0)))
		k.call(wire.OpGetattr, id, join(num32(1, 0), open[:8]))
		k.call(wire.OpRelease, id, join(open[:8], num32(0, 0), num64(0)))
		k.call(wire.OpUnlink, 1, name)
		k.send(wire.OpForget, id, num64(1))
	}
}
