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
	// there are the commits that are known to be on the server's branches, nil before it was asked; tips are the ends of those, head is that of HEAD.
	there map[string]bool
	tips  []string
	head  string
	// back says that it was asked for what led there, too.
	back    bool
	idBytes int
}

var errFetch = errors.New("the server cannot be asked for what is there")

// changed gives the paths that a command changes. Everything in the pack counts, whichever command it was sent for. What is on the server and on no branch
// of it counts too: anybody may have put it there, as a proposal, into a fork, or with a push that showed something else.
func (f *files) changed(ctx context.Context, c *gitwire.Command, sent []string) ([]string, error) {
	if err := f.complete(ctx, c, sent); err != nil {
		return nil, err
	}
	all := map[string]bool{}
	add := func(paths []string, err error) error {
		for _, p := range paths {
			all[p] = true
		}
		if err == nil && len(all) > gitwire.MaxPaths {
			err = fmt.Errorf("%w: more than %d paths", gitwire.ErrTooMuch, gitwire.MaxPaths)
		}
		return err //nolint:wrapcheck // says what is missing
	}
	if _, ok := f.objects.Commit(c.New); !ok {
		return nil, fmt.Errorf("%w: what %s is to be is no commit", gitwire.ErrMissing, c.Ref)
	}
	from := c.Old
	if c.Creates() {
		var err error
		if from, err = f.base(ctx, c.New, sent); err != nil {
			return nil, err
		}
	}
	if from != "" {
		if err := add(f.objects.Between(from, c.New)); err != nil {
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
	wants := f.outside(c.New, sent)
	if !c.Creates() {
		wants = append(wants, c.Old)
	}
	return f.want(ctx, wants)
}

// outside are those commits that a new one and what was sent stand on, and that were not sent, itself if it was not.
func (f *files) outside(id string, sent []string) (all []string) {
	seen := map[string]bool{}
	for _, s := range sent {
		seen[s] = true
	}
	add := func(id string) {
		if !seen[id] && len(all) <= maxWants {
			all = append(all, id)
		}
		seen[id] = true
	}
	add(id)
	for _, s := range sent {
		commit, _ := f.objects.Commit(s)
		for _, parent := range commit.Parents {
			add(parent)
		}
	}
	return all
}

// want asks the server for commits with their trees, but for those that are known.
func (f *files) want(ctx context.Context, ids []string) error {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, known := f.objects.Commit(id)
		return known || f.asked[id]
	})
	switch {
	case len(ids) == 0:
		return nil
	case len(ids) > maxWants:
		return fmt.Errorf("%w: the push stands on more than %d commits", gitwire.ErrTooMuch, maxWants)
	case f.p.m.cfg.Fetch == nil:
		return errFetch
	}
	for _, id := range ids {
		f.asked[id] = true
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	err := f.fetch(ctx, gitwire.Wants(ids, true), f.objects.ReadFetched)
	if err != nil && ctx.Err() == nil {
		err = f.fetch(ctx, gitwire.Wants(ids, false), f.objects.ReadFetched) // not every server can leave files out
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errFetch, err)
	}
	return f.objects.Settle() //nolint:wrapcheck // says what it did
}

// fetch asks once.
func (f *files) fetch(ctx context.Context, body []byte, read func(io.Reader) error) error {
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
	return read(res.Body)
}
