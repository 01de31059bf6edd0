package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"capsem/core/api"
	"capsem/core/fault"
)

const (
	// maxText is the largest file that is shown as a diff; maxDiffs bounds all diffs of an answer together, maxDiffed what is read for them.
	maxText   = 1 << 20
	maxDiffs  = 8 << 20
	maxDiffed = 128 << 20
	// context is how many lines around a change are shown.
	contextLines = 3
)

// Diff tells what differs between two snapshots, or a snapshot and now if to is "", at a path and below it.
func (s *Store) Diff(ctx context.Context, from, to, path string) (out api.SnapshotDiffReply, err error) {
	clean, err := cleanPath(path)
	if err != nil {
		return out, err
	}
	if err := s.begin(ctx); err != nil {
		return out, err
	}
	defer s.end()
	out, err = s.diff(ctx, from, to, clean)
	return out, explain("compare snapshots", err)
}

func (s *Store) diff(ctx context.Context, from, to, path string) (out api.SnapshotDiffReply, err error) {
	d := &differ{s: s, ctx: ctx, live: to == ""}
	d.out = api.SnapshotDiffReply{From: from, To: to, Files: []api.SnapshotFileDiff{}}
	h, err := s.lookup(from)
	if err != nil {
		return out, err
	}
	old, err := s.manifest(h)
	if err != nil {
		return out, err
	}
	var now *manifest
	if d.live {
		now, err = s.scan(ctx, false)
	} else if h, err = s.lookup(to); err == nil {
		now, err = s.manifest(h)
	}
	if err != nil {
		return out, err
	}
	a, b := old.under(path), now.under(path)
	if path != "" && len(a) == 0 && len(b) == 0 {
		return out, fault.New(fault.NotFound, "there is no %s in either", shown(path))
	}
	compare(a, b, func(was, is *entry) bool {
		if len(d.out.Files) == maxListed {
			d.out.Truncated = true
			return false
		}
		err = d.file(was, is)
		return err == nil
	})
	return d.out, err
}

type differ struct {
	s    *Store
	ctx  context.Context //nolint:containedctx // lives as long as one call
	live bool
	out  api.SnapshotDiffReply
	read int64
	made int
}

// file adds one path that differs.
func (d *differ) file(was, is *entry) error {
	if err := d.ctx.Err(); err != nil {
		return context.Cause(d.ctx) //nolint:wrapcheck // Diff does
	}
	f := api.SnapshotFileDiff{SnapshotChange: changeOf(was, is, api.OpNew)}
	for _, e := range []*entry{was, is} {
		if e != nil && e.kind == kindFile {
			d.read += e.size
			f.TooLarge = f.TooLarge || e.size > maxText || d.read > maxDiffed || d.made > maxDiffs
		}
	}
	if !f.TooLarge {
		if err := d.text(&f, was, is); err != nil {
			return err
		}
	}
	d.out.Files = append(d.out.Files, f)
	return nil
}

func (d *differ) text(f *api.SnapshotFileDiff, was, is *entry) error {
	a, err := d.content(was, false)
	if err != nil {
		return err
	}
	b, err := d.content(is, d.live)
	if err != nil {
		return err
	}
	if !isText(a) || !isText(b) {
		f.Binary = true
		return nil
	}
	from, to := label("a/", was), label("b/", is)
	text, err := udiff.ToUnified(from, to, a, udiff.Lines(a, b), contextLines)
	if err != nil {
		return fmt.Errorf("diff %s: %w", shown(f.Path), err)
	}
	if d.made += len(text); d.made > maxDiffs {
		f.TooLarge = true
		return nil
	}
	f.Diff = text
	return nil
}

func label(side string, e *entry) string {
	if e == nil {
		return "/dev/null"
	}
	if strings.ContainsFunc(e.path, func(r rune) bool { return r < ' ' || r == utf8.RuneError || r == '"' }) {
		return fmt.Sprintf("%q", side+e.path)
	}
	return side + e.path
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// content is what a file holds; of a symlink, where it leads.
func (d *differ) content(e *entry, live bool) (string, error) {
	if e == nil || e.kind == kindDir {
		return "", nil
	}
	if e.kind == kindSymlink {
		return e.target + "\n", nil
	}
	if !live {
		f, err := d.s.stored(d.ctx, e)
		if err != nil {
			return "", err
		}
		return readUp(f)
	}
	f, st, err := openIn(d.s.root, e.path, readFlags)
	if err != nil {
		if gone(err) || denied(err) {
			return "", nil // it went meanwhile
		}
		return "", fmt.Errorf("read %s: %w", shown(e.path), err)
	}
	if st.kind != kindFile {
		return "", f.Close()
	}
	return readUp(f)
}

func readUp(f *os.File) (string, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxText))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read: %w", err)
	}
	return string(data), nil
}
