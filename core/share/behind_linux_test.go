package share_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share"
	"capsem/core/share/wire"
)

func TestAWriteThatIsDoneInPartAfterItWasSaidToBeDoneIsToldOf(t *testing.T) {
	needMount(t)
	host := t.TempDir()
	must(t, unix.Mount("small", host, "tmpfs", 0, "size=320m"))
	t.Cleanup(func() { _ = unix.Unmount(host, unix.MNT_DETACH) })
	r := startRig(t, host, func(c *share.Config) { c.Log = nil })
	f, err := os.Create(r.in("f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("x")
	must(t, err)
	r.settle()
	full, err := os.Create(r.on("full"))
	must(t, err)
	defer full.Close()
	var st unix.Statfs_t
	must(t, unix.Statfs(host, &st))
	must(t, unix.Fallocate(int(full.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-16<<10))
	if _, err := f.WriteAt(make([]byte, 64<<10), 1<<20); err != nil {
		t.Fatal("there was credit for it:", err)
	}
	want(t, f.Sync(), unix.ENOSPC)
}

func TestAWriteThatFailsAfterItWasSaidToBeDoneIsToldOnce(t *testing.T) {
	needMount(t)
	host := t.TempDir()
	must(t, unix.Mount("small", host, "tmpfs", 0, "size=320m"))
	t.Cleanup(func() { _ = unix.Unmount(host, unix.MNT_DETACH) })
	r := startRig(t, host, func(c *share.Config) { c.Log = nil })
	f, err := os.Create(r.in("f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("x")
	must(t, err)
	other, err := os.Create(r.in("other"))
	must(t, err)
	defer other.Close()
	r.settle()
	full, err := os.Create(r.on("full"))
	must(t, err)
	defer full.Close()
	var st unix.Statfs_t
	must(t, unix.Statfs(host, &st))
	must(t, unix.Fallocate(int(full.Fd()), 0, 0, int64(st.Bavail)*st.Bsize))
	page := make([]byte, 64<<10)
	if _, err := f.WriteAt(page, 1<<20); err != nil {
		t.Fatal("there was credit for it:", err)
	}
	want(t, f.Sync(), unix.ENOSPC)
	must(t, f.Sync())
	must(t, other.Sync())
	_, err = f.WriteAt(page, 2<<20)
	want(t, err, unix.ENOSPC) // there is no credit any more
	must(t, full.Truncate(0))
	_, err = f.WriteAt(page, 3<<20)
	must(t, err)
	must(t, f.Sync())
}

func TestCreditIsLentOnlyWhereWritesCannotFail(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*share.Config)
		asked  bool
		want   int64
	}{
		"room":            {nil, true, wire.MaxBehind},
		"nobody asks":     {nil, false, -1},
		"read-only":       {func(c *share.Config) { c.ReadOnly = true }, true, -1},
		"a small quota":   {func(c *share.Config) { c.Quota.Bytes = 64 << 20 }, true, -1},
		"an ample quota":  {func(c *share.Config) { c.Quota.Bytes = 1 << 40 }, true, wire.MaxBehind},
		"nearly all used": {func(c *share.Config) { c.Quota.Bytes = 256 << 20 }, true, -1},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t, c.change)
			if got := k.credit(c.asked); got != c.want {
				t.Errorf("lent %d, want %d", got, c.want)
			}
		})
	}
}

// credit begins a session and returns what it is lent before INIT is answered, -1 for nothing.
func (k *kernel) credit(asks bool) int64 {
	k.t.Helper()
	_ = k.conn.Close()
	ours, theirs, err := socketPair()
	must(k.t, err)
	k.conn = ours
	k.served.Go(func() { _ = k.server.Serve(k.t.Context(), theirs) })
	mount := binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(time.Now().UnixNano()))
	must(k.t, wire.WriteHandshake(k.conn, wire.Hello{Version: wire.Version, Mount: mount, Behind: asks}))
	_, err = wire.ReadWelcome(k.conn)
	must(k.t, err)
	k.send(wire.OpInit, 0, num32(7, 38, 1<<20, 0xffffffff))
	lent := int64(-1)
	for {
		n, err := wire.ReadHead(k.conn, wire.OutSize)
		must(k.t, err)
		msg := make([]byte, n)
		_, err = k.conn.Read(msg)
		must(k.t, err)
		code, unique, err := wire.ParseOut(msg)
		must(k.t, err)
		if unique != 0 {
			return lent
		}
		if code == wire.NotifyCredit {
			n, err := wire.ParseCredit(msg)
			must(k.t, err)
			lent = int64(n)
		}
	}
}

func TestWhatIsAskedAfterAWriteComesAfterIt(t *testing.T) {
	r := newRig(t, nil)
	block := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	for i := range 40 {
		name := fmt.Sprint("f", i)
		f, err := os.Create(r.in(name))
		must(t, err)
		for range 4 {
			_, err = f.Write(block)
			must(t, err)
		}
		_, err = f.WriteAt([]byte("late"), 0)
		must(t, err)
		must(t, f.Truncate(int64(len(block)+i)))
		must(t, f.Close())
		switch i % 4 {
		case 0:
			st, err := os.Stat(r.in(name))
			must(t, err)
			if st.Size() != int64(len(block)+i) {
				t.Fatalf("%s has %d bytes", name, st.Size())
			}
		case 1:
			must(t, os.Rename(r.in(name), r.in(name+"x")))
			name += "x"
		case 2:
			must(t, os.Link(r.in(name), r.in(name+"l")))
			name += "l"
		}
		b, err := os.ReadFile(r.on(name))
		must(t, err)
		if len(b) != len(block)+i || !bytes.HasPrefix(b, []byte("late456789")) {
			t.Fatalf("%s: %d bytes on the host, %q...", name, len(b), b[:10])
		}
	}
}

func TestSmallWritesGoOnWhileTheHostIsAwayAndArriveOnce(t *testing.T) {
	r := newRig(t, nil)
	f, err := os.OpenFile(r.in("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	defer f.Close()
	var text bytes.Buffer
	for i := range 300 {
		line := fmt.Sprintf("line %d\n", i)
		text.WriteString(line)
		_, err := f.WriteString(line)
		must(t, err)
		if i%37 == 5 {
			r.breakStream()
		}
	}
	if got := read(t, r.on("log")); got != text.String() {
		t.Errorf("the host has %d bytes, want %d", len(got), text.Len())
	}
}
