package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"capsem/core/policy"
	"capsem/core/proto"
)

// Judge says what the policy in force says. A verdict other than deny lets a lookup through: the connection is judged again.
type Judge interface {
	Judge(ctx context.Context, req *policy.Request) policy.Verdict
}

// finder finds what the world says of a name: a Resolver, but in tests.
type finder interface {
	addresses(ctx context.Context, name string) (finding, bool, error)
	find(ctx context.Context, k key) (finding, bool, error)
}

// Config is what a Server needs. Judge, Recorder and Resolver must be there.
type Config struct {
	// VM is the VM's name, for the policy; Hostname is what the guest calls itself, answered with loopback addresses.
	VM, Hostname string
	Judge        Judge
	Recorder     Recorder
	Resolver     *Resolver
	// Unchecked gives every allowed name a stand-in without asking whether it exists: for hosts that reach the world only through a
	// proxy which resolves names itself.
	Unchecked bool
	// Pool and Names bound the stand-ins; default DefaultPool and DefaultNames.
	Pool  netip.Prefix
	Names int
	// Concurrent bounds the lookups of the VM that are answered at once; default 256. No more are read until one is done.
	Concurrent int
	// EventsPerSecond and EventBurst bound the events of lookups that are answered from memory, for each of allowed and not allowed;
	// default 500 and 2000. Those over it are counted in Event.Repeats. Lookups that go upstream always have their event.
	EventsPerSecond, EventBurst int
	// Now is the clock.
	Now func() time.Time
}

// Server answers the lookups of one VM.
type Server struct {
	cfg      Config
	hostname string
	finder   finder
	table    *table
	slots    chan struct{}
	events   *meter
}

// NewServer makes the server of a VM.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Judge == nil || cfg.Recorder == nil || cfg.Resolver == nil {
		return nil, errors.New("make DNS server: judge, recorder and resolver are needed")
	}
	if !cfg.Pool.IsValid() {
		cfg.Pool = DefaultPool
	}
	set := func(v *int, to int) {
		if *v <= 0 {
			*v = to
		}
	}
	set(&cfg.Names, DefaultNames)
	set(&cfg.Concurrent, 256)
	set(&cfg.EventsPerSecond, 500)
	set(&cfg.EventBurst, 2000)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t, err := newTable(cfg.Pool, cfg.Names)
	if err != nil {
		return nil, fmt.Errorf("make DNS server: %w", err)
	}
	return &Server{
		cfg: cfg, hostname: strings.ToLower(cfg.Hostname), finder: cfg.Resolver, table: t, slots: make(chan struct{}, cfg.Concurrent),
		events: newMeter(cfg.Recorder, cfg.EventsPerSecond, cfg.EventBurst, cfg.Now),
	}, nil
}

// Name gives the name that an address stands for.
func (s *Server) Name(addr netip.Addr) (string, bool) { return s.table.name(addr) }

// StandIn gives the address that stands for a name in normal form, if the guest has asked for it.
func (s *Server) StandIn(name string) (netip.Addr, bool) { return s.table.find(name) }

// Export writes which address stands for which name, to be kept with the VM's memory: it goes on using them.
func (s *Server) Export() []byte { return s.table.export() }

// Import takes over what Export wrote, in place of what there is. State that is damaged or of another pool is refused, and changes nothing.
func (s *Server) Import(state []byte) error {
	if err := s.table.restore(state); err != nil {
		return fmt.Errorf("restore names: %w", err)
	}
	return nil
}

// handle answers one message and records it. An empty answer means that the client gets none.
func (s *Server) handle(ctx context.Context, in *proto.DNSQuery) []byte {
	start := s.cfg.Now()
	q, rcode, answer := parseQuery(in.Message, in.TCP)
	var out outcome
	if answer && rcode == 0 {
		out = s.resolve(ctx, &q, &in.Process)
	} else {
		out = refusedBy(rcode)
	}
	var wire []byte
	if answer {
		m := q.reply(out.rcode)
		m.Answer = out.records
		if len(out.records) == 0 && (out.rcode == 0 && q.asked || out.rcode == nxdomain) {
			m.Ns = append(m.Ns, negative())
		}
		wire = q.pack(m)
	}
	s.record(start, in, &q, &out, len(wire) > 0)
	return wire
}
