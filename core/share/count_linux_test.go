package share_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share"
	"capsem/core/share/wire"
)

// A guest walks down as deep as it likes, by names that are relative. The host must still count what is there.
func TestADeepTreeIsCountedAndKeepsNoVMFromStarting(t *testing.T) {
	const mb = 1 << 20
	quota := func(c *share.Config) { c.Quota.Bytes = 64 * mb }
	k := newKernel(t, quota)
	node := uint64(wire.RootID)
	for i := range 40 {
		name := fmt.Sprintf("%03d%s", i, strings.Repeat("x", 200))
		errno, b := k.call(wire.OpMkdir, node, join(num32(0o755, 0), text(name)))
		if errno != 0 {
			t.Fatal("MKDIR:", errno)
		}
		node = num(b)
	}
	errno, b := k.call(wire.OpCreate, node, join(num32(unix.O_WRONLY, 0o644, 0, 0), text("f")))
	if errno != 0 {
		t.Fatal("CREATE:", errno)
	}
	file, handle := num(b), num(b[wire.EntrySize:])
	for i := range 8 {
		body := join(num64(handle, uint64(i*mb)), num32(mb, 0), num64(0), num32(0, 0), make([]byte, mb))
		if errno, _ := k.call(wire.OpWrite, file, body); errno != 0 {
			t.Fatal("WRITE:", errno)
		}
	}
	used := k.server.Stats().Bytes
	config := share.Config{Root: k.host, Tag: "again"}
	quota(&config)
	again, err := share.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if now := again.Stats().Bytes; now < used-mb || now > used+mb {
		t.Errorf("%d bytes are counted, and %d after a restart", used, now)
	}
	must(t, again.Close())
}

// Names take space in their directories, which stays taken when they go.
func TestNamesAreNotFree(t *testing.T) {
	for what, do := range map[string]func(r *rig) error{
		"links": func(r *rig) error {
			write(t, r.in("f"), "")
			for i := range 20000 {
				if err := os.Link(r.in("f"), r.in(fmt.Sprintf("%06d%s", i, strings.Repeat("n", 240)))); err != nil {
					return err
				}
			}
			return nil
		},
		"renames": func(r *rig) error {
			const files = 500
			name := func(i int) string { return fmt.Sprintf("%03d%s", i, strings.Repeat("n", 240)) }
			must(t, os.Mkdir(r.in("0"), 0o755))
			for i := range files {
				write(t, r.in("0", name(i)), "")
			}
			for dir := range 100 {
				if err := os.Mkdir(r.in(strconv.Itoa(dir+1)), 0o755); err != nil {
					return err
				}
				for i := range files {
					if err := os.Rename(r.in(strconv.Itoa(dir), name(i)), r.in(strconv.Itoa(dir+1), name(i))); err != nil {
						return err
					}
				}
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			const limit = 2 << 20
			r := newRig(t, func(c *share.Config) { c.Quota.Bytes = limit })
			want(t, do(r), unix.EDQUOT)
			config := share.Config{Root: r.host, Quota: share.Quota{Bytes: 1 << 40}}
			s, err := share.New(config)
			must(t, err)
			if held := s.Stats().Bytes; held > limit+64<<10 {
				t.Errorf("the directory holds %d bytes, more than %d", held, limit)
			}
			must(t, s.Close())
		})
	}
}

func num(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// Blocks that lie behind the end of a file are none for its holes.
func TestHolesBeforeReservedBlocksAreNotFree(t *testing.T) {
	const mb, limit, half = 1 << 20, 96 << 20, 47 << 20
	r := newRig(t, func(c *share.Config) { c.Quota.Bytes = limit })
	f, err := os.OpenFile(r.in("f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(half))
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, half, half))
	err = os.WriteFile(r.in("rest"), make([]byte, limit), 0o644)
	want(t, err, unix.EDQUOT)
	data := bytes.Repeat([]byte("x"), mb)
	for at := int64(0); at < half; at += mb {
		if _, err = f.WriteAt(data, at); err != nil {
			break
		}
	}
	want(t, err, unix.EDQUOT)
	var st unix.Stat_t
	must(t, unix.Stat(r.on("f"), &st))
	if st.Blocks*512 > half+20*mb {
		t.Errorf("a file takes %d bytes, and %d were reserved", st.Blocks*512, half)
	}
}
