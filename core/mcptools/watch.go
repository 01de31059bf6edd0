package mcptools

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/fault"
	"capsem/core/paths"
)

const (
	// maxWatched bounds the resources that a client has subscribed to.
	maxWatched = 64
	// watchEvery is how often they are looked at.
	watchEvery = time.Second
)

// watcher looks at the resources that the client has subscribed to, and tells it when one has changed.
type watcher struct {
	s    *Server
	wake chan struct{}
	wg   sync.WaitGroup

	mu sync.Mutex
	// watched counts subscriptions and remembers what was last seen; listed are VMs' resources in the list.
	watched map[string]*watched
	listed  map[string]bool
}

type watched struct {
	count int
	// seen is empty before the first look.
	seen string
}

func newWatcher(s *Server) *watcher {
	return &watcher{s: s, wake: make(chan struct{}, 1), watched: map[string]*watched{}, listed: map[string]bool{}}
}

func (w *watcher) start(ctx context.Context) { w.wg.Go(func() { w.loop(ctx) }) }

func (w *watcher) stop() { w.wg.Wait() }

func (w *watcher) subscribe(ctx context.Context, req *mcp.SubscribeRequest) error {
	uri := req.Params.URI
	if _, err := parseURI(uri); err != nil {
		return mcp.ResourceNotFoundError(uri)
	}
	w.mu.Lock()
	one := w.watched[uri]
	if one == nil && len(w.watched) >= maxWatched {
		w.mu.Unlock()
		return &failure{fault.New(fault.LimitReached, "%d resources are subscribed to already", maxWatched).WithHint("unsubscribe from one")}
	}
	if one == nil {
		one = &watched{}
		w.watched[uri] = one
	}
	one.count++
	w.mu.Unlock()
	seen := w.look(ctx, uri) // what changes from now on is news
	w.mu.Lock()
	if one.seen == "" {
		one.seen = seen
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

func (w *watcher) unsubscribe(_ context.Context, req *mcp.UnsubscribeRequest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.watched[req.Params.URI]; one != nil {
		if one.count--; one.count <= 0 {
			delete(w.watched, req.Params.URI)
		}
	}
	return nil
}

// loop looks at each resource in turn; with none to look at it sleeps.
func (w *watcher) loop(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		uris := w.uris()
		if len(uris) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, uri := range uris {
			seen := w.look(ctx, uri)
			if ctx.Err() != nil {
				return
			}
			if w.note(uri, seen) {
				// It fails only when the client has left.
				_ = w.s.mcp.ResourceUpdated(ctx, &mcp.ResourceUpdatedNotificationParams{URI: uri})
			}
		}
	}
}

func (w *watcher) uris() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	uris := make([]string, 0, len(w.watched))
	for uri := range w.watched {
		uris = append(uris, uri)
	}
	return uris
}

// note remembers what was seen and reports whether it is news.
func (w *watcher) note(uri, seen string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.watched[uri]
	if one == nil || one.seen == seen {
		return false
	}
	news := one.seen != ""
	one.seen = seen
	return news
}

// look is a short text that differs when the resource does. It starts no service, wakes no VM that sleeps, and a resource that is
// not there is one state of it.
func (w *watcher) look(ctx context.Context, uri string) string {
	svc := w.s.opts.Client
	p, err := parseURI(uri)
	if err != nil {
		return "none"
	}
	if p.kind == "vm" && (p.what == "file" || p.what == "terminal") {
		info, err := svc.Info(ctx, p.id)
		switch {
		case err != nil:
			return "none"
		case p.what == "file" && !strings.HasPrefix(p.path, "/"):
			return onHost(paths.VM(info.Dir), p.path)
		case !awake(info):
			return w.last(uri) // nothing changes in a VM that does not run
		}
	}
	if p.what == "file" {
		info, err := svc.StatFile(ctx, p.id, p.path)
		if err != nil {
			return "none"
		}
		if info.Type != "dir" {
			return fmt.Sprint(info.Size, info.ModTimeNS, info.Mode)
		}
	}
	c, err := w.s.resource(ctx, svc, uri)
	if err != nil {
		return "none"
	}
	return fmt.Sprintf("%x", sha256.Sum256(c.data))
}

// onHost looks at a file of the workspace where it is, on the host, so that looking is no use of the VM and keeps it from no
// idle suspend. Names and links are the guest's: nothing outside the workspace is seen.
func onHost(vm paths.VM, name string) string {
	root, err := os.OpenRoot(vm.Workspace())
	if err != nil {
		return "none"
	}
	defer root.Close()
	info, err := root.Stat(path.Join(".", name))
	if err != nil {
		return "none"
	}
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano(), info.Mode())
}

func (w *watcher) last(uri string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.watched[uri]; one != nil && one.seen != "" {
		return one.seen
	}
	return "asleep"
}
