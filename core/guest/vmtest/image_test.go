//go:build vm

package vmtest

import (
	"context"
	"os"
	"runtime"
	"testing"

	"capsem/core/assets"
	"capsem/core/assets/assetstest"
)

// image opens the minimal image; the test closes it.
func image(ctx context.Context, t *testing.T) (kernel, initrd, rootfs *os.File, rootType string) {
	t.Helper()
	set, err := assets.Current(assetstest.Home(t), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	o, err := set.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o.Kernel, o.Initrd, o.RootFS, set.RootFSType()
}
