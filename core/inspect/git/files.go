package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"capsem/core/inspect/gitwire"
)

const (
	// maxWants bounds how many commits the server is asked for, fetchTime how long that may take.
	maxWants  = 64
	fetchTime = time.Minute
)

// files finds out which paths a push changes.
//
// A pack alone does not say: unchanged trees are not in it, and a path that is put back to what it once was is not either. So the trees of the commits
// that the new ones stand on are asked of the server itself, by the way and with the credentials of the push. What changed is then what differs between
// the old tip and the new one, and in each new commit from all of its parents. Ids are computed, so neither side can tell of other trees than there are.
type files struct {
	p       *pass
	req     *http.Request
	objects *gitwire.Objects
	// asked are the commits that the server was asked for.
	asked map[string]bool
}

var errFetch = errors.New("the server cannot be asked for what is there")

// changed gives the paths that a command changes. Everything in the pack counts, whichever command it was sent for.
func (f *files) changed(ctx context.Context, c *gitwire.Command, sent []string) ([]string, error) {
	if err := f.complete(ctx, c, sent); err != nil {
		return nil, err
	}
	all := map[string]bool{}
	add := func(paths []string, err error) error {
		for _, p := range paths {
			all[p] = true
		}
		return err //nolint:wrapcheck // says what is missing
	}
	if _, ok := f.objects.Commit(c.New); !ok {
		return nil, fmt.Errorf("%w: what %s is to be is no commit", gitwire.ErrMissing, c.Ref)
	}
	if !c.Creates() {
		if err := add(f.objects.Between(c.Old, c.New)); err != nil {
			return nil, err
		}
	}
	for _, id := range sent {
		if err := add(f.objects.By(id)); err != nil {
			return nil, err
		}
	}
	paths := make([]string, 0, len(all))
	for p := range all {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths, nil
}

// complete asks the server for those commits that are not in the pack.
func (f *files) complete(ctx context.Context, c *gitwire.Command, sent []string) error {
	var wants []string
	want := func(id string) {
		if _, ok := f.objects.Commit(id); !ok && !f.asked[id] && !slices.Contains(wants, id) {
			wants = append(wants, id)
		}
	}
	if !c.Creates() {
		want(c.Old)
	}
	want(c.New)
	for _, id := range sent {
		commit, _ := f.objects.Commit(id)
		for _, parent := range commit.Parents {
			want(parent)
		}
	}
	switch {
	case len(wants) == 0:
		return nil
	case len(wants) > maxWants:
		return fmt.Errorf("%w: the push stands on %d commits", gitwire.ErrTooMuch, len(wants))
	case f.p.m.cfg.Fetch == nil:
		return errFetch
	}
	for _, id := range wants {
		f.asked[id] = true
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	err := f.fetch(ctx, wants, true)
	if err != nil && ctx.Err() == nil {
		err = f.fetch(ctx, wants, false) // not every server can leave files out
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errFetch, err)
	}
	return f.objects.Settle() //nolint:wrapcheck // says what it did
}

// fetch asks once.
func (f *files) fetch(ctx context.Context, wants []string, noFiles bool) error {
	body := gitwire.Wants(wants, noFiles)
	host := f.p.f.Host
	if p := f.p.f.Port; p != 0 {
		host = net.JoinHostPort(host, strconv.Itoa(int(p)))
	}
	path := strings.TrimSuffix(f.req.URL.Path, receive) + upload
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, (&url.URL{Scheme: f.p.f.Scheme, Host: host, Path: path}).String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask for trees: %w", err)
	}
	req.Host = f.req.Host
	for name, value := range map[string]string{
		"Content-Type": "application/x-git-upload-pack-request", "Accept": "application/x-git-upload-pack-result", "Git-Protocol": "version=2",
		"User-Agent": f.req.UserAgent(), "Authorization": f.req.Header.Get("Authorization"),
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := f.p.m.cfg.Fetch(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
		return fmt.Errorf("%w: status %d", gitwire.ErrAnswer, res.StatusCode)
	}
	return f.objects.ReadFetched(res.Body) //nolint:wrapcheck // says what it did
}
