package share_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fsx does random things to one file, through the guest's mount and now and then on the host, and compares it with a model.
type fsx struct {
	t     *testing.T
	r     *rig
	rnd   *rand.Rand
	f     *os.File
	model []byte
	log   []string
}

const fsxMax = 256 << 10

func (x *fsx) fail(format string, args ...any) {
	x.t.Helper()
	for _, l := range x.log[max(0, len(x.log)-20):] {
		x.t.Log(l)
	}
	x.t.Fatalf(format, args...)
}

func (x *fsx) note(format string, args ...any) { x.log = append(x.log, fmt.Sprintf(format, args...)) }

func (x *fsx) grow(n int) {
	if n > len(x.model) {
		x.model = append(x.model, make([]byte, n-len(x.model))...)
	}
}

func (x *fsx) data() (off int, b []byte) {
	off = x.rnd.IntN(fsxMax)
	b = make([]byte, 1+x.rnd.IntN(min(64<<10, fsxMax-off)))
	for i := range b {
		b[i] = byte(x.rnd.Uint32())
	}
	return off, b
}

func (x *fsx) step() {
	switch x.rnd.IntN(10) {
	case 0, 1, 2:
		off, b := x.data()
		x.note("write %d+%d", off, len(b))
		_, err := x.f.WriteAt(b, int64(off))
		must(x.t, err)
		x.grow(off + len(b))
		copy(x.model[off:], b)
	case 3, 4:
		x.read()
	case 5:
		n := x.rnd.IntN(fsxMax)
		x.note("truncate %d", n)
		must(x.t, x.f.Truncate(int64(n)))
		x.grow(n)
		x.model = x.model[:n]
	case 6:
		x.mapped()
	case 7:
		x.note("reopen")
		must(x.t, x.f.Close())
		f, err := os.OpenFile(x.r.in("fsx"), os.O_RDWR, 0)
		must(x.t, err)
		x.f = f
	case 8:
		x.punch()
	case 9:
		x.onHost()
	}
}

func (x *fsx) read() {
	off := x.rnd.IntN(fsxMax)
	b := make([]byte, 1+x.rnd.IntN(64<<10))
	x.note("read %d+%d of %d", off, len(b), len(x.model))
	n, err := x.f.ReadAt(b, int64(off))
	if err != nil && err != io.EOF {
		x.t.Fatal(err)
	}
	var is []byte
	if off < len(x.model) {
		is = x.model[off:min(len(x.model), off+len(b))]
	}
	if !bytes.Equal(b[:n], is) {
		x.fail("read %d+%d: %d bytes differ from the %d of the model", off, len(b), n, len(is))
	}
}

func (x *fsx) mapped() {
	if len(x.model) == 0 {
		return
	}
	x.note("map and write")
	m, err := unix.Mmap(int(x.f.Fd()), 0, len(x.model), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(x.t, err)
	if !bytes.Equal(mappedBytes(x.t, m), x.model) {
		x.fail("mapped bytes differ")
	}
	off, b := x.data()
	if off < len(x.model) {
		b = b[:min(len(b), len(x.model)-off)]
		copyMapped(x.t, m[off:], b)
		copy(x.model[off:], b)
	}
	must(x.t, unix.Msync(m, unix.MS_SYNC))
	must(x.t, unix.Munmap(m))
}

// Mapped memory is only touched by the kernel, in calls that Go's scheduler knows of: a page fault would stop a thread that
// the rest of this process, which answers it, may have to wait for.
func mappedBytes(t *testing.T, m []byte) []byte {
	t.Helper()
	fd := memfd(t)
	defer unix.Close(fd)
	_, err := unix.Pwrite(fd, m, 0)
	must(t, err)
	out := make([]byte, len(m))
	_, err = unix.Pread(fd, out, 0)
	must(t, err)
	return out
}

func copyMapped(t *testing.T, m, b []byte) {
	t.Helper()
	fd := memfd(t)
	defer unix.Close(fd)
	_, err := unix.Pwrite(fd, b, 0)
	must(t, err)
	_, err = unix.Pread(fd, m[:len(b)], 0)
	must(t, err)
}

func memfd(t *testing.T) int {
	t.Helper()
	fd, err := unix.MemfdCreate("mapped", unix.MFD_CLOEXEC)
	must(t, err)
	return fd
}

func (x *fsx) punch() {
	off, b := x.data()
	x.note("punch %d+%d", off, len(b))
	must(x.t, unix.Fallocate(int(x.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(len(b))))
	if off < len(x.model) {
		clear(x.model[off:min(len(x.model), off+len(b))])
	}
}

// onHost compares what is on the host, and edits it there; the guest must see that soon.
func (x *fsx) onHost() {
	x.note("edit on the host")
	b, err := os.ReadFile(x.r.on("fsx"))
	must(x.t, err)
	if !bytes.Equal(b, x.model) {
		x.fail("the host's bytes differ")
	}
	if x.rnd.IntN(4) != 0 {
		return
	}
	for i := range x.model {
		x.model[i] ^= 0x55
	}
	must(x.t, os.WriteFile(x.r.on("fsx"), x.model, 0o644))
	soon(x.t, "the host's edit", func() bool {
		b, err := os.ReadFile(x.r.in("fsx"))
		return err == nil && bytes.Equal(b, x.model)
	})
}

func TestRandomOperationsMatchAModel(t *testing.T) {
	r := newRig(t, nil)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	f, err := os.OpenFile(r.in("fsx"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	x := &fsx{t: t, r: r, rnd: rand.New(rand.NewPCG(seed, 1)), f: f}
	defer func() { _ = x.f.Close() }()
	for i := range 2000 {
		if i%250 == 249 { // streams break at any time
			x.note("break")
			r.breakStream()
		}
		x.step()
	}
}
