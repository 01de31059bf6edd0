package image

import (
	"errors"
	"io"
	"os"
	"testing"

	"capsem/core/fault"
	"capsem/core/paths"
)

// deleter is somebody who reads an archive that is being made, and deletes the image meanwhile.
type deleter struct {
	shelf Shelf
	errs  []error
}

func (d *deleter) Write(p []byte) (int, error) {
	d.errs = append(d.errs, d.shelf.Delete("base"))
	return len(p), nil
}

func TestAnImageThatIsBeingCopiedIsNotDeleted(t *testing.T) {
	home := paths.Home(t.TempDir())
	i := made(t, home, "base")
	d := &deleter{shelf: Images(home)}
	if err := i.Export(d); err != nil || len(d.errs) == 0 {
		t.Fatalf("exported: %v, %d writes", err, len(d.errs))
	}
	for _, err := range d.errs {
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("deleted while it was exported: %v", err)
		}
	}
	must(t, i.Place(t.TempDir(), true))
	must(t, Images(home).Delete("base"))
	for what, err := range map[string]error{"placed": i.Place(t.TempDir(), true), "exported": i.Export(io.Discard)} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s after its deletion: %v", what, err)
		}
	}
	made(t, home, "base")
	if err := i.Place(t.TempDir(), true); !fault.Is(err, fault.NotFound) {
		t.Errorf("another image of the name is taken for it: %v", err)
	}
}

func TestDeletingDuringCopiesLeavesWholeCopiesOrNone(t *testing.T) {
	home := paths.Home(t.TempDir())
	for range 30 {
		i := made(t, home, "base")
		to := t.TempDir()
		placed := make(chan error)
		go func() { placed <- i.Place(to, true) }()
		deleted := Images(home).Delete("base")
		err := <-placed
		switch {
		case err == nil:
			if _, bad := os.ReadFile(to + "/workspace/sub/file"); bad != nil {
				t.Fatal("half a copy:", bad)
			}
		case !fault.Is(err, fault.NotFound):
			t.Fatal(err)
		}
		if deleted != nil && !fault.Is(deleted, fault.Conflict) {
			t.Fatal(deleted)
		}
		if deleted != nil {
			must(t, errors.Join(err, Images(home).Delete("base")))
		}
	}
}
