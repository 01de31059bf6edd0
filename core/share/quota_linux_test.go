package share_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share"
)

func TestTheFirstChangeAfterARestartIsCounted(t *testing.T) {
	const mb = 1 << 20
	for what, try := range map[string]struct {
		change func(r *rig, open *os.File) error
		more   int64
	}{
		"a write":       {func(_ *rig, f *os.File) error { _, err := f.WriteAt(make([]byte, mb), mb); return err }, mb},
		"an allocation": {func(_ *rig, f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, mb, 3*mb) }, 3 * mb},
		"a truncation":  {func(r *rig, _ *os.File) error { return os.Truncate(r.in("f"), 0) }, -mb},
		"an emptying":   {func(r *rig, _ *os.File) error { return os.WriteFile(r.in("f"), nil, 0o600) }, -mb},
		"a removal":     {func(r *rig, _ *os.File) error { return os.Remove(r.in("other")) }, -mb},
		"a replacement": {func(r *rig, _ *os.File) error { return os.Rename(r.in("f"), r.in("other")) }, -mb},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, func(c *share.Config) { c.Quota.Bytes = 64 * mb })
			must(t, os.WriteFile(r.in("other"), make([]byte, mb), 0o600))
			f, err := os.OpenFile(r.in("f"), os.O_RDWR|os.O_CREATE, 0o600)
			must(t, err)
			defer f.Close()
			_, err = f.Write(make([]byte, mb))
			must(t, err)
			r.restart(t, nil)
			before := r.current().Stats().Bytes
			must(t, try.change(r, f))
			more := r.current().Stats().Bytes - before
			if more < try.more-64<<10 || more > try.more+64<<10 {
				t.Errorf("%d bytes more are counted, not %d", more, try.more)
			}
		})
	}
}
