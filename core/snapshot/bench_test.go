package snapshot

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"capsem/core/api"
)

// benchRig has n files and a full ring of snapshots, each with one change.
func benchRig(b *testing.B, n int) *rig {
	b.Helper()
	r := newRig(b, func(o *Options) { o.Log, o.ManualMax = nil, 50 })
	for i := range n {
		r.write(fmt.Sprintf("d%d/f%d", i%100, i), fmt.Sprint("file ", i))
	}
	r.take(api.OriginAuto, "")
	settled(b)
	for i := range 12 {
		r.write("d0/f0", fmt.Sprint("change ", i))
		r.take(api.OriginAuto, "")
	}
	settled(b)
	r.write("d0/f0", "now")
	r.take(api.OriginAuto, "")
	return r
}

func Benchmark(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{10, 10_000} {
		r := benchRig(b, n)
		step := 0
		b.Run(fmt.Sprintf("create/%d", n), func(b *testing.B) {
			for b.Loop() {
				step++
				r.write("d0/f0", fmt.Sprint("step ", step))
				r.take(api.OriginAuto, "")
			}
		})
		b.Run(fmt.Sprintf("create-first/%d", n), func(b *testing.B) { first(b, r) })
		b.Run(fmt.Sprintf("list/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.s.List(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("changes/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.s.Changes(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("revert-file/%d", n), func(b *testing.B) {
			for b.Loop() {
				step++
				r.write("d0/f0", fmt.Sprint("step ", step))
				r.revert("d0/f0", "cp-0")
			}
		})
		b.Run(fmt.Sprintf("history/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.s.History(ctx, "d0/f0"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("open/%d", n), func(b *testing.B) {
			for b.Loop() {
				r.reopen()
			}
		})
		b.Run(fmt.Sprintf("revert-all-deleted/%d", n), func(b *testing.B) {
			for b.Loop() {
				for i := range min(n, 100) {
					r.remove(fmt.Sprintf("d%d", i))
				}
				r.revert("", "cp-0")
			}
		})
	}
}

// first takes the first snapshot in a new store.
func first(b *testing.B, r *rig) {
	b.Helper()
	for b.Loop() {
		opts := r.opts
		opts.Dir = b.TempDir() + "/new"
		s, err := Open(context.Background(), opts)
		if err != nil {
			b.Fatal(err)
		}
		_, err = s.Create(context.Background(), api.OriginAuto, "")
		if err = errors.Join(err, s.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
