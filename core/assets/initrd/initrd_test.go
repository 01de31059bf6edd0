package initrd

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ulikunitz/xz"
)

// ko is a module that needs others, as far as this package looks.
func ko(deps string) []byte {
	return []byte("ELF\x00license=GPL\x00depends=" + deps + "\x00name=x\x00")
}

func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	tree := fstest.MapFS{
		"modules.builtin":               {Data: []byte("kernel/drivers/virtio/virtio.ko\nkernel/fs/fuse.ko\n")},
		"kernel/fs/erofs/erofs.ko.xz":   {Data: packed(t, ko("lz4-decompress,netfs"))},
		"kernel/fs/netfs/netfs.ko":      {Data: ko("")},
		"kernel/lib/lz4_decompress.ko":  {Data: ko("virtio")},
		"kernel/drivers/virtio-rng.ko":  {Data: ko("virtio,rng-core")},
		"kernel/drivers/rng-core.ko.xz": {Data: packed(t, ko(""))},
		"kernel/drivers/circle_a.ko":    {Data: ko("circle_b")},
		"kernel/drivers/circle_b.ko":    {Data: ko("circle_a")},
		"kernel/drivers/broken.ko.xz":   {Data: []byte("no xz")},
		"kernel/drivers/needs_gone.ko":  {Data: ko("gone")},
	}
	got, err := Modules(tree, []string{"virtio_rng", "erofs", "fuse", "circle_a"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range got {
		names = append(names, m.Name)
	}
	if list := strings.Join(names, " "); list != "rng_core.ko virtio_rng.ko lz4_decompress.ko netfs.ko erofs.ko circle_b.ko circle_a.ko" {
		t.Errorf("order is %s", list)
	}
	if !bytes.Equal(got[4].Data, ko("lz4-decompress,netfs")) {
		t.Error("a packed module is not unpacked")
	}
	for _, bad := range []string{"broken", "needs_gone", "absent"} {
		if _, err := Modules(tree, []string{bad}); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
}

func TestTheSameInputGivesTheSameBytesAndIsReadBack(t *testing.T) {
	in := Input{Agent: bytes.Repeat([]byte("agent"), 10000), Modules: []Module{{"z.ko", []byte("Z")}, {"a.ko", nil}}}
	var first, second bytes.Buffer
	if err := Build(&first, in); err != nil {
		t.Fatal(err)
	}
	if err := Build(&second, in); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two builds differ")
	}
	got, err := Read(bytes.NewReader(first.Bytes()))
	if err != nil || len(got) != 2 || got[0].Name != "z.ko" || string(got[0].Data) != "Z" {
		t.Errorf("read back %v, %v", got, err)
	}
	if err := Build(&second, Input{Modules: []Module{{"../x.ko", nil}}}); err == nil {
		t.Error("a name that leads elsewhere is taken")
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Build(&b, Input{Agent: []byte("x"), Modules: []Module{{"a.ko", []byte("A")}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = Read(bytes.NewReader(data)) // must not panic or take much memory
	})
}

func FuzzDepends(f *testing.F) {
	f.Add(ko("a,b"))
	f.Fuzz(func(_ *testing.T, data []byte) { _ = depends(data) })
}
