package dns

import (
	"container/list"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// Bounds of what a TTL may say: shorter ones are asked again too often, longer ones outlive changes.
	minTTL, maxTTL = 5 * time.Second, time.Hour
	// Bounds of how long it is believed that something does not exist.
	minNegative, maxNegative, defaultNegative = 5 * time.Second, 5 * time.Minute, 30 * time.Second
	// failureTTL keeps a failing upstream from being asked at every retry of a client (RFC 9520).
	failureTTL = time.Second
	entryCost  = 256
)

// key is what was asked upstream. Type 0 stands for the addresses of both kinds.
type key struct {
	name  string
	qtype uint16
}

// finding is what upstream says about a key.
type finding struct {
	// missing is NXDOMAIN.
	missing bool
	addrs   []netip.Addr
	records []dns.RR
	err     error
	ttl     time.Duration
}

func (f *finding) cost() int {
	n := entryCost + 24*len(f.addrs)
	for _, rr := range f.records {
		n += 2*dns.Len(rr) + 128
	}
	return n
}

// cache keeps findings within a number and a size, the least recently used going first. Its user locks it.
type cache struct {
	maxEntries, maxBytes int
	bytes                int
	entries              map[key]*list.Element
	order                *list.List
}

type cached struct {
	key     key
	finding finding
	cost    int
	expires time.Time
}

func newCache(entries, bytes int) *cache {
	return &cache{maxEntries: entries, maxBytes: bytes, entries: map[key]*list.Element{}, order: list.New()}
}

func (c *cache) get(k key, now time.Time) (finding, bool) {
	e, ok := c.entries[k]
	if !ok {
		return finding{}, false
	}
	item := at(e)
	if !now.Before(item.expires) {
		c.remove(e)
		return finding{}, false
	}
	c.order.MoveToFront(e)
	f := item.finding
	f.ttl = item.expires.Sub(now)
	return f, true
}

func (c *cache) put(k key, f finding, now time.Time) {
	if e, ok := c.entries[k]; ok {
		c.remove(e)
	}
	item := &cached{key: k, finding: f, cost: f.cost() + len(k.name), expires: now.Add(f.ttl)}
	if item.cost > c.maxBytes {
		return
	}
	c.entries[k] = c.order.PushFront(item)
	c.bytes += item.cost
	for c.bytes > c.maxBytes || len(c.entries) > c.maxEntries {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	item := at(e)
	c.order.Remove(e)
	delete(c.entries, item.key)
	c.bytes -= item.cost
}

func (c *cache) clear() {
	clear(c.entries)
	c.order.Init()
	c.bytes = 0
}

func at(e *list.Element) *cached {
	item, _ := e.Value.(*cached) // nothing else is ever put in
	return item
}
