package castore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestAKeeperLooksAgainOnlyWhenSomethingHasChanged(t *testing.T) {
	t.Parallel()
	root, first, second := t.TempDir(), authority(t, "first", true), authority(t, "second", true)
	var k Keeper
	do := func(ca []byte) {
		t.Helper()
		if r, err := k.Install(root, ca); err != nil || len(r.Skipped) > 0 || r.Env["SSL_CERT_FILE"] != bundle {
			t.Fatal(r, err)
		}
		if err := Check(root); err != nil || bytes.Count(get(t, root, bundle), ca) != 1 {
			t.Fatal("the certificate is not in the store once: ", err)
		}
	}
	do(first)
	mark := filepath.Join(root, dir, links(t, root)[0]) // nobody looks for it when nothing else has changed
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	do(first)
	if _, err := os.Lstat(mark); err == nil {
		t.Error("it was all done again")
	}
	do(second)
	if bytes.Contains(get(t, root, bundle), first) {
		t.Error("the certificate of before is still there")
	}
	do(first)
	put(t, root, bundle, []byte("what a package has written\n"))
	do(first)
	if err := os.Remove(filepath.Join(root, source)); err != nil {
		t.Fatal(err)
	}
	do(first)
}
