package dns

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"capsem/core/policy"
)

// What a lookup may fail with, besides the error of an upstream.
var (
	// ErrNoName says that the name does not exist, ErrNoAddress that it does but has no address.
	ErrNoName    = errors.New("no such name")
	ErrNoAddress = errors.New("the name has no address")
	// ErrTooMany says that the VM looks up more new names than it may.
	ErrTooMany = errors.New("too many lookups")
	// ErrClosed says that the resolver has been closed.
	ErrClosed = errors.New("resolver closed")
)

const (
	// maxFlights bounds the questions that are on their way at once, lookupTime how long each may take in all.
	maxFlights = 256
	lookupTime = 8 * time.Second
)

// ResolverConfig says whom a Resolver asks and within what bounds. Zero fields have the defaults named.
type ResolverConfig struct {
	// Servers are addresses (with or without port) and https URLs of DoH servers. None: those in ResolvConf.
	Servers []string
	// ResolvConf is read when there are no Servers, and again when it changes; default /etc/resolv.conf.
	ResolvConf string
	// HostsFile has names that come before those of the servers, in the form of /etc/hosts. Default none.
	HostsFile string
	// Transport takes DoH requests; default one that trusts the host's roots.
	Transport http.RoundTripper
	// Timeout is for one server, default 2 s; Tries how often all are asked, default 2.
	Timeout time.Duration
	Tries   int
	// CacheEntries and CacheBytes bound the cache; default 4096 and 4 MiB.
	CacheEntries, CacheBytes int
	// PerSecond and Burst bound the names asked upstream; default 200 and 500.
	PerSecond, Burst int
	// Now is the clock of the cache and of the bound.
	Now func() time.Time
}

// Resolver asks the owner's nameservers, with a cache. It may be used by any number of goroutines.
type Resolver struct {
	cfg    ResolverConfig
	up     *upstream
	hosts  *watched[map[string][]netip.Addr]
	limit  *rate.Limiter
	client *http.Client

	// ctx is of the flights, which outlive whoever started them.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	cache   *cache
	flights map[key]*flight
	closed  bool
	// generation is that of the nameservers that the cache is from.
	generation uint64
}

// flight is a question that is on its way; all who ask the same wait for it.
type flight struct {
	done    chan struct{}
	finding finding
}

func (c *ResolverConfig) defaults() {
	set := func(v *int, to int) {
		if *v <= 0 {
			*v = to
		}
	}
	set(&c.Tries, 2)
	set(&c.CacheEntries, 4096)
	set(&c.CacheBytes, 4<<20)
	set(&c.PerSecond, 200)
	set(&c.Burst, 500)
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// NewResolver makes a resolver that works until ctx ends or Close.
func NewResolver(ctx context.Context, cfg ResolverConfig) (*Resolver, error) {
	cfg.defaults()
	r := &Resolver{
		cfg: cfg, client: newClient(cfg.Transport), cache: newCache(cfg.CacheEntries, cfg.CacheBytes), flights: map[key]*flight{},
		limit: rate.NewLimiter(rate.Limit(cfg.PerSecond), cfg.Burst),
	}
	list, err := r.servers()
	if err != nil {
		return nil, fmt.Errorf("make resolver: %w", err)
	}
	r.up = &upstream{list: list, timeout: cfg.Timeout, tries: cfg.Tries}
	if cfg.HostsFile != "" {
		r.hosts = &watched[map[string][]netip.Addr]{path: cfg.HostsFile, parse: parseHosts, now: cfg.Now}
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r, nil
}

// servers says where the list of nameservers comes from.
func (r *Resolver) servers() (func() ([]transport, uint64, error), error) {
	if len(r.cfg.Servers) == 0 {
		file := &watched[[]transport]{path: r.cfg.ResolvConf, now: r.cfg.Now, parse: func(text string) (list []transport) {
			for _, addr := range parseResolvConf(text) {
				list = append(list, plain{addr: addr})
			}
			return list
		}}
		return file.get, nil
	}
	var fixed []transport
	for _, server := range r.cfg.Servers {
		t, err := newTransport(server, r.client)
		if err != nil {
			return nil, err
		}
		fixed = append(fixed, t)
	}
	return func() ([]transport, uint64, error) { return fixed, 0, nil }, nil
}

// Close ends all lookups and waits for them.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.client.CloseIdleConnections()
}

// Lookup gives the real addresses of a name. They may be private ones: whoever dials judges them.
func (r *Resolver) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	f, _, err := r.addresses(ctx, name)
	return slices.Clone(f.addrs), err
}

// addresses is Lookup, and says whether an upstream was asked for it.
func (r *Resolver) addresses(ctx context.Context, name string) (f finding, fresh bool, err error) {
	host, err := policy.NormalHost(name)
	if err != nil {
		return f, false, fmt.Errorf("look up name: %w", err)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return finding{addrs: []netip.Addr{addr}}, false, nil
	}
	if r.hosts != nil {
		names, _, err := r.hosts.get()
		if err != nil {
			return f, false, err
		}
		if addrs := names[host]; len(addrs) > 0 {
			return finding{addrs: addrs}, false, nil
		}
	}
	f, fresh, err = r.find(ctx, key{name: host})
	if err == nil && len(f.addrs) == 0 {
		err = ErrNoAddress
	}
	return f, fresh, err
}

// find answers from the cache, or from a flight. The error of a missing name is ErrNoName.
func (r *Resolver) find(ctx context.Context, k key) (f finding, fresh bool, err error) {
	if local(k.name) {
		return f, false, ErrNoName // RFC 6761: upstream must not be asked
	}
	r.refresh()
	r.mu.Lock()
	if f, ok := r.cache.get(k, r.cfg.Now()); ok {
		r.mu.Unlock()
		err := f.failure()
		return f, false, err
	}
	fl, fresh, err := r.board(k)
	r.mu.Unlock()
	if err != nil {
		return f, false, err
	}
	select {
	case <-fl.done:
		return fl.finding, fresh, fl.finding.failure()
	case <-ctx.Done():
		return f, fresh, fmt.Errorf("look up name: %w", context.Cause(ctx))
	}
}

// refresh forgets everything when the host has got other nameservers: it may be in another network now.
func (r *Resolver) refresh() {
	_, generation, err := r.up.list()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && generation != r.generation {
		r.generation = generation
		r.cache.clear()
	}
}

// board joins the flight for a key or starts one. The caller holds mu.
func (r *Resolver) board(k key) (fl *flight, fresh bool, err error) {
	if fl, ok := r.flights[k]; ok {
		return fl, false, nil
	}
	switch {
	case r.closed:
		return nil, false, ErrClosed
	case len(r.flights) >= maxFlights, !r.limit.AllowN(r.cfg.Now(), 1):
		return nil, false, ErrTooMany
	}
	fl = &flight{done: make(chan struct{})}
	r.flights[k] = fl
	r.wg.Go(func() { r.fly(fl, k) })
	return fl, true, nil
}

func (r *Resolver) fly(fl *flight, k key) {
	ctx, cancel := context.WithTimeout(r.ctx, lookupTime)
	defer cancel()
	if k.qtype == 0 {
		fl.finding = r.up.addresses(ctx, k.name)
	} else {
		fl.finding = r.up.chase(ctx, k.name, k.qtype)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flights, k)
	if r.ctx.Err() == nil {
		r.cache.put(k, fl.finding, r.cfg.Now())
	}
	close(fl.done)
}

func (f *finding) failure() error {
	if f.missing {
		return ErrNoName
	}
	return f.err
}

// local says that a name is that of whoever asks (RFC 6761).
func local(name string) bool { return name == "localhost" || strings.HasSuffix(name, ".localhost") }
