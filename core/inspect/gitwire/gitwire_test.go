package gitwire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	zero = strings.Repeat("0", 40)
	one  = strings.Repeat("1", 40)
	two  = strings.Repeat("2", 40)
)

func head(lines ...string) []byte {
	var b []byte
	for _, l := range lines {
		b = AppendPacket(b, l)
	}
	return AppendFlush(b)
}

func TestCommandsAreReadAndNothingOfThePack(t *testing.T) {
	all := append(head("shallow "+two, zero+" "+one+" refs/heads/a\x00 report-status side-band-64k push-options agent=git/2", one+" "+zero+" refs/tags/v\n"), head("ci.skip\n")...)
	src := strings.NewReader(string(all) + "PACK...")
	p, err := ReadPush(src)
	if err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(src)
	if string(rest) != "PACK..." || !bytes.Equal(p.Raw, all) {
		t.Errorf("left %q", rest)
	}
	if len(p.Commands) != 2 || !p.Commands[0].Creates() || !p.Commands[1].Deletes() || p.Commands[1].Ref != "refs/tags/v" || len(p.Shallow) != 1 ||
		len(p.Options) != 1 || !p.Has("agent") || !p.Has("side-band-64k") || p.Has("atomic") || !p.HasPack() || p.IDBytes() != 20 {
		t.Errorf("%+v", p)
	}
}

func TestCommandsThatSomebodyMightReadOtherwiseAreNone(t *testing.T) {
	for what, b := range map[string][]byte{
		"nothing":         nil,
		"no flush":        AppendPacket(nil, zero+" "+one+" refs/heads/a"),
		"a short id":      head("0 1 refs/heads/a"),
		"no change":       head(zero + " " + zero + " refs/heads/a"),
		"dots":            head(zero + " " + one + " refs/heads/a/../main"),
		"a doubled slash": head(zero + " " + one + " refs/heads//main"),
		"a line's end":    head(zero + " " + one + " refs/heads/a\nrefs/heads/main"),
		"HEAD":            head(zero + " " + one + " HEAD"),
		"twice":           head(zero+" "+one+" refs/heads/a", zero+" "+two+" refs/heads/a"),
		"two lengths":     head(zero+" "+one+" refs/heads/a", strings.Repeat("0", 64)+" "+strings.Repeat("1", 64)+" refs/heads/b"),
		"a delimiter":     []byte("0001"),
		"a bad length":    []byte("00zz"),
		"a length of 3":   []byte("0003"),
		"an open cert":    head("push-cert", "certificate\n", "\n", zero+" "+one+" refs/heads/a\n"),
		"no options":      head(zero + " " + one + " refs/heads/a\x00push-options"),
		"far too many":    bytes.Repeat(AppendPacket(nil, strings.Repeat("x", 60000)), 50),
	} {
		if p, err := ReadPush(bytes.NewReader(b)); !errors.Is(err, ErrPush) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
}

// repo makes a repository of a few commits and gives the ids of its first and last one.
func repo(t *testing.T, commits int, format string) (dir, first, last string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := run(dir, nil, "init", "-q", "--object-format="+format); err != nil {
		t.Fatalf("git: %v %s", err, out)
	}
	for i := range commits {
		if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte{byte('a' + i%26)}, i), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = run(dir, nil, "add", "-A")
		if out, err := run(dir, nil, "commit", "--allow-empty", "-qm", "a commit with a message that is long enough to be written as a difference, number "+strings.Repeat("x", i)); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if i == 0 {
			out, _ := run(dir, nil, "rev-parse", "HEAD")
			first = strings.TrimSpace(string(out))
		}
	}
	out, _ := run(dir, nil, "rev-parse", "HEAD")
	return dir, first, strings.TrimSpace(string(out))
}

func run(dir string, in io.Reader, args ...string) ([]byte, error) {
	cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@x"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, in
	return cmd.Output()
}

func TestTheHistoryOfAPackLeadsBack(t *testing.T) {
	for format, size := range map[string]int{"sha1": 20, "sha256": 32} {
		dir, first, last := repo(t, 60, format)
		for what, args := range map[string][]string{"plain": {"--window=0"}, "deltas": {"--delta-base-offset", "--depth=50"}, "deltas by id": {"--depth=50"}, "thin": {"--thin"}} {
			pack, err := run(dir, strings.NewReader(last+"\n^"+first+"\n"), append([]string{"pack-objects", "--revs", "--stdout", "-q"}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			h, err := ReadHistory(bytes.NewReader(pack), size)
			if err != nil {
				t.Errorf("%s, %s: %v", format, what, err)
				continue
			}
			if !h.Leads(last, first) || h.Leads(first, last) || h.Leads(last, strings.Repeat("3", len(first))) {
				t.Errorf("%s, %s: it does not lead from %s to %s: %d commits", format, what, last, first, len(h.parents))
			}
			for _, broken := range [][]byte{pack[:len(pack)/2], pack[:len(pack)-1], append(bytes.Clone(pack), 'x'), append([]byte("JUNK"), pack...)} {
				if _, err := ReadHistory(bytes.NewReader(broken), size); !errors.Is(err, ErrPack) {
					t.Errorf("%s, %s: a broken pack: %v", format, what, err)
				}
			}
		}
	}
}

func TestAnswersAreInPackets(t *testing.T) {
	p := &Push{Commands: []Command{{zero, one, "refs/heads/a"}}, Capabilities: []string{"report-status", "side-band-64k"}}
	got := string(Refused(p, "all\nof it", func(*Command) string { return "why\x00not" }))
	if want := "000f\x02all of it\n0033\x01000eunpack ok\n001cng refs/heads/a why not\n00000000"; got != want {
		t.Errorf("%q", got)
	}
	p.Capabilities = nil
	if got := string(Refused(p, "m", nil)); got != "000aERR m\n" {
		t.Errorf("%q", got)
	}
	if got := AppendBand(nil, 1, make([]byte, MaxPacket)); len(got) != MaxPacket+10 || string(got[:4]) != "fff0" {
		t.Errorf("%d %q", len(got), got[:4])
	}
}

func FuzzReadPush(f *testing.F) {
	f.Add(head(zero+" "+one+" refs/heads/a\x00report-status push-options", "push-cert"))
	f.Add(append(head("push-cert\x00x", "a\n\n", zero+" "+one+" refs/heads/a\n", "push-cert-end\n"), "PACK"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPush(bytes.NewReader(b))
		if !bytes.HasPrefix(b, p.Raw) {
			t.Fatal("what was read is not what was there")
		}
		for _, c := range p.Commands {
			if err == nil && !ValidRef(c.Ref) {
				t.Fatalf("%q", c.Ref)
			}
		}
		Refused(p, "m", func(*Command) string { return "r" })
		if _, raw, _ := ReadFetch(bytes.NewReader(b)); !bytes.HasPrefix(b, raw) {
			t.Fatal("what was read is not what was there")
		}
	})
}

func FuzzReadHistory(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x93\x0ax\x9c\x03\x00\x00\x00\x00\x01"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if h, err := ReadHistory(bytes.NewReader(b), 20); err == nil {
			h.Leads(one, two)
		}
		_, _ = patch(b, b)
		o := NewObjects(20)
		if _, err := o.ReadObjects(bytes.NewReader(b)); err == nil {
			for _, id := range o.Commits() {
				_, _ = o.By(id)
				_, _ = o.Between(one, id)
			}
		}
		_ = NewObjects(20).ReadFetched(bytes.NewReader(b))
	})
}

func TestTreesThatCouldHideSomethingAreRefused(t *testing.T) {
	id := string(make([]byte, 20))
	for name, data := range map[string]string{
		"no mode": " a\x00" + id, "a mode of zeros": "000 a\x00" + id, "a mode in words": "x a\x00" + id, "no name": "100644 \x00" + id, "a slash": "100644 a/b\x00" + id, "dots": "40000 ..\x00" + id,
		"a repository": "40000 .GIT\x00" + id, "twice": "100644 a\x00" + id + "40000 a\x00" + id, "cut": "100644 a\x00" + id[1:], "no end of the name": "100644 a",
	} {
		o := NewObjects(20)
		if err := o.add(typeTree, []byte(data)); err != nil {
			t.Fatal(err)
		}
		if got, err := o.tree(hashed(typeTree, []byte(data), 20)); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	o := NewObjects(20)
	good := "040000 docs\x00" + id + "100644 \xff\x00" + id
	if err := o.add(typeTree, []byte(good)); err != nil {
		t.Fatal(err)
	}
	if got, err := o.tree(hashed(typeTree, []byte(good), 20)); err != nil || got["docs"].mode != modeTree || len(got) != 2 {
		t.Errorf("%v %v", got, err)
	}
	if _, err := o.tree(one); !errors.Is(err, ErrMissing) {
		t.Errorf("one that is not known: %v", err)
	}
	if err := o.add(typeTree, make([]byte, maxObjectBytes)); !errors.Is(err, ErrTooMuch) {
		t.Errorf("too much: %v", err)
	}
}

// BenchmarkReadHistory reads a pack of incompressible files.
func BenchmarkReadHistory(b *testing.B) {
	dir := b.TempDir()
	if _, err := run(dir, nil, "init", "-q"); err != nil {
		b.Skip(err)
	}
	data, x := make([]byte, 16<<20), uint32(1)
	for i := range data {
		x = x*1664525 + 1013904223
		data[i] = byte(x>>24) & 0x3f
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o600); err != nil {
		b.Fatal(err)
	}
	_, _ = run(dir, nil, "add", "-A")
	_, _ = run(dir, nil, "commit", "-qm", "x")
	pack, err := run(dir, strings.NewReader("HEAD\n"), "pack-objects", "--revs", "--stdout", "-q")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(pack)))
	for b.Loop() {
		if _, err := ReadHistory(bytes.NewReader(pack), 20); err != nil {
			b.Fatal(err)
		}
	}
}
