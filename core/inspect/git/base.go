package git

import (
	"context"
	"fmt"
	"io"
	"slices"

	"capsem/core/inspect/gitwire"
)

// base is the commit that a new branch has to be compared with: none where all that it stands on is on the server's branches, else the server's HEAD.
func (f *files) base(ctx context.Context, id string, sent []string) (string, error) {
	on := f.outside(id, sent)
	missing := func(id string) bool { return !f.there[id] }
	for _, more := range []func(context.Context) error{f.look, f.lookBack} {
		if len(on) == 0 || f.there != nil && !slices.ContainsFunc(on, missing) {
			return "", nil
		}
		if err := more(ctx); err != nil {
			return "", err
		}
	}
	switch {
	case !slices.ContainsFunc(on, missing):
		return "", nil
	case f.head == "":
		return "", fmt.Errorf("%w: the new branch stands on what is on no other", gitwire.ErrMissing)
	}
	return f.head, f.want(ctx, []string{f.head})
}

// look asks the server where its branches are.
func (f *files) look(ctx context.Context) error {
	if f.there != nil {
		return nil
	}
	if f.p.m.cfg.Fetch == nil {
		return errFetch
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	err := f.fetch(ctx, gitwire.ListRefs(f.idBytes), func(src io.Reader) (err error) {
		f.head, f.tips, err = gitwire.ReadRefs(src)
		return err //nolint:wrapcheck // says what it did
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errFetch, err)
	}
	f.there = map[string]bool{}
	for _, id := range f.tips {
		f.there[id] = true
	}
	return nil
}

// lookBack asks it for what led there. A server that does not tell has its branches' ends looked at only.
func (f *files) lookBack(ctx context.Context) error {
	var from []string
	for _, id := range append([]string{f.head}, f.tips...) {
		if f.there[id] && len(from) < maxWants && !slices.Contains(from, id) {
			from = append(from, id)
		}
	}
	if f.back || len(from) == 0 {
		return nil
	}
	f.back = true
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	for _, noTrees := range []bool{true, false} { // not every server can leave them out
		past := gitwire.NewObjects(f.idBytes)
		if f.fetch(ctx, gitwire.WantsPast(from, noTrees), past.ReadFetched) != nil {
			continue
		}
		for id := range past.Reach(from) {
			f.there[id] = true
		}
		break
	}
	return nil
}
