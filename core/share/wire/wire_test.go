package wire_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"capsem/core/share/wire"
)

func TestNamesThatAreNone(t *testing.T) {
	for name, want := range map[string]error{
		"": wire.ErrName, ".": wire.ErrName, "..": wire.ErrName, "a/b": wire.ErrName, "/": wire.ErrName, "a\x00": wire.ErrName,
		strings.Repeat("x", 256): wire.ErrLongName, strings.Repeat("x", 255): nil, "...": nil, "\xff": nil, " ": nil,
	} {
		if err := wire.CheckName(name); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

func TestRequestsAreParsedAsTheyWereMade(t *testing.T) {
	msg := wire.AppendRequest(nil, wire.OpMkdir, 7, 9, []byte("\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00name\x00"))
	head, body, err := wire.ParseRequest(msg)
	if err != nil || head.Op != wire.OpMkdir || head.Unique != 7 || head.Node != 9 {
		t.Fatal(head, err)
	}
	r := wire.NewBody(body)
	if a, b, name := r.U32(), r.U64(), r.Name(); a != 1 || b != 2 || name != "name" || r.End() != nil {
		t.Error(a, b, name, r.Err())
	}
	for i := range msg {
		if _, _, err := wire.ParseRequest(msg[:i]); err == nil {
			t.Errorf("%d bytes of %d are accepted", i, len(msg))
		}
	}
}

func TestAnswersHaveTheKernelsSizes(t *testing.T) {
	for what, sizes := range map[string][2]int{
		"attr":   {len(wire.AppendAttrOut(nil, time.Second, wire.Attr{})), 104},
		"entry":  {len(wire.AppendEntry(nil, wire.Entry{})), 128},
		"open":   {len(wire.AppendOpen(nil, 1, 2)), 16},
		"statfs": {len(wire.AppendStatfs(nil, wire.Statfs{})), 80},
		"init":   {len(wire.AppendInit(nil, wire.Init{})), 64},
		"dirent": {len(wire.AppendDirent(nil, wire.Dirent{Name: "123456789"})), 40},
		"inode":  {len(wire.AppendInvalInode(nil, 1, true)), 40},
		"name":   {len(wire.AppendInvalEntry(nil, 1, "abc")), 36},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d bytes, want %d", what, sizes[0], sizes[1])
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(wire.AppendRequest(nil, wire.OpLookup, 1, 1, []byte("name\x00")))
	f.Add(wire.AppendInvalEntry(nil, 1, "x"))
	var hello bytes.Buffer
	if err := wire.WriteHandshake(&hello, wire.Hello{Version: 1, Mount: make([]byte, 16)}); err != nil {
		f.Fatal(err)
	}
	f.Add(hello.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if head, body, err := wire.ParseRequest(b); err == nil {
			if int(head.Len) != len(b) || len(body) > len(b) {
				t.Fatal(head)
			}
			if w, ok := wire.ParseWrite(body); ok && int(w.Size) != len(body)-wire.WriteHead {
				t.Fatal(w)
			}
			r := wire.NewBody(body)
			_, _ = r.U64(), r.U32()
			if name := r.Name(); r.Err() == nil && wire.CheckName(name) != nil {
				t.Fatalf("%q", name)
			}
			r.Skip(-1)
			r.Skip(3)
			_ = r.End()
		}
		_, _, _ = wire.ParseOut(b)
		_, _ = wire.ParseInit(b)
		if n, err := wire.ParseCredit(b); err == nil && n > wire.MaxBehind {
			t.Fatal(n)
		}
		if h, err := wire.ReadHello(bytes.NewReader(b)); err == nil && len(h.Mount) != wire.MountSize {
			t.Fatal(h)
		}
		_, _ = wire.ReadWelcome(bytes.NewReader(b))
		if n, err := wire.ReadHead(bytes.NewReader(b), wire.OutSize); err == nil && (n > wire.MaxMessage || n < wire.OutSize) {
			t.Fatal(n)
		} else if len(b) == 0 && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}
