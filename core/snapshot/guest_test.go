package snapshot

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

func TestAGuestThatWaitedRemovesNothingOfTheOwners(t *testing.T) {
	guest := Guest{Prefix: "guest-"}
	for name, req := range map[string]proto.SnapshotRequest{
		"delete":  {Op: proto.SnapshotDelete},
		"compact": {Op: proto.SnapshotCompact, Name: "guest-all"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.write("f", "one")
			id := r.manual("guest-one")
			req.Checkpoint, req.Checkpoints = id, []string{id}
			if err := r.s.begin(context.Background()); err != nil {
				t.Fatal(err)
			}
			refused := make(chan error)
			go func() {
				_, err := r.s.DoGuest(context.Background(), &req, guest)
				refused <- err
			}()
			h, err := r.s.lookup(id)
			if err == nil {
				err = r.s.remove(h)
			}
			if err == nil {
				h, _, err = r.s.take(context.Background(), api.OriginManual, "kept")
			}
			r.s.end()
			if err != nil || h.id() != id {
				t.Fatalf("%s in the place of %s, %v", h.id(), id, err)
			}
			if err := <-refused; !fault.Is(err, fault.Forbidden) {
				t.Errorf("the guest is answered %v", err)
			}
			if now, err := r.s.lookup(id); err != nil || now.Name != "kept" {
				t.Errorf("the owner's snapshot is %+v, %v", now, err)
			}
		})
	}
}

func TestSmallHolesTakeNoSpaceWhenTheyComeBack(t *testing.T) {
	r := newRig(t)
	const files, size = 100, smallFile
	name := func(i int) string { return "holes/" + string(rune('a'+i/26)) + string(rune('a'+i%26)) }
	for i := range files {
		r.write(name(i), "x")
		if err := os.Truncate(r.path(name(i)), size); err != nil {
			t.Fatal(err)
		}
	}
	id := r.manual("one")
	r.remove("holes")
	r.revert("holes", id)
	var blocks int64
	for i := range files {
		var st unix.Stat_t
		if err := unix.Stat(r.path(name(i)), &st); err != nil || st.Size != size {
			t.Fatal(st.Size, err)
		}
		blocks += st.Blocks * 512
	}
	if blocks > files*16<<10 {
		t.Errorf("%d files with a byte and a hole take %d bytes", files, blocks)
	}
}

func TestAGuestThatReadsSlowlyKeepsNoSnapshotFromBeingMade(t *testing.T) {
	r := newRig(t)
	r.write("f", "0")
	id := r.manual("one")
	var answers []Answer
	for i := range 2 * revertMax {
		r.write("f", string(rune('a'+i)))
		undo := r.revert("f", id).Undo
		read := proto.SnapshotRequest{Op: proto.SnapshotRead, Checkpoint: undo, Path: []byte("f")}
		answer, err := r.s.DoGuest(context.Background(), &read, Guest{})
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, answer)
	}
	for i, answer := range answers { // and what was opened is what it was
		var b strings.Builder
		if err := answer(&b); err != nil || b.String() != string(rune('a'+i)) {
			t.Errorf("%d: %q, %v", i, b.String(), err)
		}
	}
}

func TestWhatSnapshotsTakeIsWhatTheDiskHolds(t *testing.T) {
	r := newRig(t)
	const files = 200
	for i := range files {
		r.write("d/"+strconv.Itoa(i), strconv.Itoa(i))
	}
	r.manual("one")
	var disk int64
	err := filepath.WalkDir(r.opts.Dir+"/objects", func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && !d.IsDir() {
			err = unix.Stat(path, &st)
			disk += st.Blocks * 512
		}
		return err
	})
	if used := r.s.Used(); err != nil || used < disk {
		t.Errorf("%d bytes are counted, and the disk holds %d (%v)", used, disk, err)
	}
	before := r.s.Used()
	r.reopen()
	if now := r.s.Used(); now != before {
		t.Errorf("%d bytes are counted, and %d after a restart", before, now)
	}
}
