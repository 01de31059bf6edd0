//go:build linux

package share

import (
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

func asked(k *known, op wire.Op, node uint64, body string) (answer []byte, changes [2]change) {
	return k.ask(wire.Header{Op: op, Node: node, Unique: 7}, []byte(body))
}

const (
	noFlags = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	eight   = "\x00\x00\x00\x00\x00\x00\x00\x00"
)

func attrHint(node uint64) wire.Hint {
	return wire.Hint{Node: node, Attr: wire.AppendAttrOut(nil, 0, wire.Attr{Ino: node})}
}

func TestAttributesAreKnownOnlyAfterTheLastChange(t *testing.T) {
	k := newKnown()
	known := func() bool { a, _ := asked(k, wire.OpGetattr, 5, noFlags); return a != nil }
	_, first := asked(k, wire.OpUnlink, 5, "a\x00")
	_, second := asked(k, wire.OpUnlink, 5, "b\x00")
	k.hint(attrHint(5), first)
	if known() {
		t.Error("an answer of before a change that is under way")
	}
	k.hint(attrHint(5), second)
	if !known() {
		t.Error("not known after the last change")
	}
	if a, _ := asked(k, wire.OpGetattr, 5, "\x01"+noFlags[1:]); a != nil {
		t.Error("a question about a handle")
	}
	for what, spoil := range map[string]func(){
		"chmod":        func() { asked(k, wire.OpSetattr, 5, "") },
		"invalidation": func() { k.stale(5, "") },
		"a name":       func() { k.stale(5, "x") },
		"forgetting":   func() { asked(k, wire.OpForget, 5, eight) },
		"the end":      func() { k.forget() },
		"rename to":    func() { asked(k, wire.OpRename, 6, "\x05"+eight[1:]+"a\x00b\x00") },
	} {
		_, last := asked(k, wire.OpUnlink, 5, "b\x00")
		k.hint(attrHint(5), last)
		before := known()
		spoil()
		if k.hint(attrHint(5), last); !before || known() {
			t.Errorf("after %s: %v", what, before)
		}
	}
}

func TestNamesAreAbsentOnlyFromADirectoryThatBeganEmpty(t *testing.T) {
	k := newKnown()
	absent := func(node uint64, name string) bool {
		a, _ := asked(k, wire.OpLookup, node, name+"\x00")
		if a == nil {
			return false
		}
		code, unique, err := wire.ParseOut(a)
		return code == -int32(unix.ENOENT) && unique == 7 && err == nil
	}
	asked(k, wire.OpCreate, 4, noFlags+"x\x00")
	k.hint(wire.Hint{Node: 5, Empty: true}, [2]change{})
	if absent(4, "y") || !absent(5, "y") || !absent(5, "x") {
		t.Error("unknown of 4, empty 5")
	}
	asked(k, wire.OpCreate, 5, noFlags+"made\x00")
	asked(k, wire.OpMkdir, 5, eight+"dir\x00")
	asked(k, wire.OpSymlink, 5, "sym\x00target\x00")
	asked(k, wire.OpLink, 5, eight+"hard\x00")
	asked(k, wire.OpRename2, 4, "\x05"+eight[1:]+eight+"old\x00moved\x00")
	asked(k, wire.OpRename, 5, "\x04"+eight[1:]+"away\x00there\x00")
	k.stale(5, "host")
	for _, name := range []string{"made", "dir", "sym", "hard", "moved", "away", "host", "", ".", ".."} {
		if absent(5, name) {
			t.Errorf("%q is absent", name)
		}
	}
	if !absent(5, "old") || !absent(5, "target") || !absent(5, "there") {
		t.Error("names of other directories are not absent")
	}
	for i := range maxNames {
		asked(k, wire.OpUnlink, 5, string(rune('a'+i%26))+string(rune(0x4e00+i))+"\x00")
	}
	if absent(5, "y") {
		t.Error("more names than are kept")
	}
	for i := range uint64(3 * maxDirs) {
		asked(k, wire.OpUnlink, 100+i, "a\x00")
	}
	if len(k.dirs) > maxDirs {
		t.Errorf("%d directories are kept", len(k.dirs))
	}
}

func FuzzKnown(f *testing.F) {
	f.Add(uint32(wire.OpRename2), []byte("\x05"+eight[1:]+eight+"old\x00moved\x00"))
	f.Add(uint32(wire.OpBatchForget), []byte("\xff\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, op uint32, body []byte) {
		k := newKnown()
		k.hint(wire.Hint{Node: 5, Empty: true}, [2]change{})
		k.ask(wire.Header{Op: wire.Op(op), Node: 5}, body)
		if h, err := wire.ParseHint(body); err == nil {
			k.hint(h, [2]change{})
		}
		if node, name, err := wire.ParseInval(wire.NotifyInvalEntry, body); err == nil {
			k.stale(node, name)
		}
	})
}
