package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/zeebo/blake3"

	"capsem/core/policy"
)

// DefaultPool is where stand-in addresses come from.
var DefaultPool = netip.MustParsePrefix("100.64.0.0/15")

const (
	// DefaultNames is how many names a VM may have stand-ins for.
	DefaultNames = 65536
	maxNameText  = 253
	// perRow is how many of 256 addresses are used: those ending in 0 or 255 look like networks and broadcasts.
	perRow     = 254
	stateMagic = "capsem-dns-1\n"
	sumSize    = 32
)

// errPool is a pool without a free address.
var errPool = errors.New("no stand-in address is left")

// table is the names that have a stand-in, in the order they came: the n-th name has the n-th address, and none is ever given to another
// name, since a connection of the guest may still use it.
type table struct {
	pool netip.Prefix
	max  int

	mu    sync.RWMutex
	names []string
	index map[string]int
}

func newTable(pool netip.Prefix, limit int) (*table, error) {
	if !pool.IsValid() || !pool.Addr().Is4() || pool.Bits() > 24 || pool.Bits() < 8 || policy.PrivateKind(pool.Addr()) == "" {
		return nil, fmt.Errorf("stand-in pool %s: not a private IPv4 range of 256 addresses or more", pool)
	}
	room := perRow << (24 - pool.Bits())
	return &table{pool: pool.Masked(), max: min(limit, room), index: map[string]int{}}, nil
}

// address is the n-th of the pool.
func (t *table) address(n int) netip.Addr {
	base := t.pool.Addr().As4()
	at := binary.BigEndian.Uint32(base[:]) + uint32(n/perRow)<<8 + uint32(n%perRow) + 1 //nolint:gosec // n is below max
	binary.BigEndian.PutUint32(base[:], at)
	return netip.AddrFrom4(base)
}

// find gives a name's stand-in if it has one.
func (t *table) find(name string) (netip.Addr, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.index[name]
	if !ok {
		return netip.Addr{}, false
	}
	return t.address(n), true
}

// assign gives a name's stand-in, a new one if need be.
func (t *table) assign(name string) (addr netip.Addr, added bool, err error) {
	if addr, ok := t.find(name); ok {
		return addr, false, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.index[name]
	if !ok {
		if n = len(t.names); n >= t.max {
			return netip.Addr{}, false, errPool
		}
		name = strings.Clone(name)
		t.names = append(t.names, name)
		t.index[name] = n
	}
	return t.address(n), !ok, nil
}

// name is the reverse of assign.
func (t *table) name(addr netip.Addr) (string, bool) {
	addr = addr.Unmap()
	if !t.pool.Contains(addr) {
		return "", false
	}
	base, b := t.pool.Addr().As4(), addr.As4()
	off := binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
	if low := off & 0xff; low == 0 || low == 255 {
		return "", false
	}
	n := int(off>>8)*perRow + int(off&0xff) - 1
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n >= len(t.names) {
		return "", false
	}
	return t.names[n], true
}

// export writes the table: magic, the pool (address and length), the number of names, each with its length before it, and a hash.
func (t *table) export() []byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	base := t.pool.Addr().As4()
	out := append([]byte(stateMagic), base[:]...)
	out = append(out, byte(t.pool.Bits()))                         //nolint:gosec // at most 24
	out = binary.BigEndian.AppendUint32(out, uint32(len(t.names))) //nolint:gosec // at most max
	for _, name := range t.names {
		out = append(append(out, byte(len(name))), name...) //nolint:gosec // at most maxNameText
	}
	sum := blake3.Sum256(out)
	return append(out, sum[:]...)
}

// restore replaces the table by an exported one. After an error it is as it was.
func (t *table) restore(state []byte) error {
	names, err := t.decode(state)
	if err != nil {
		return err
	}
	index := make(map[string]int, len(names))
	for n, name := range names {
		if normal, err := policy.NormalHost(name); err != nil || normal != name || isAddress(name) {
			return fmt.Errorf("name %d is none", n)
		}
		if _, twice := index[name]; twice {
			return fmt.Errorf("name %d is there twice", n)
		}
		index[name] = n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.names, t.index = names, index
	return nil
}

func (t *table) decode(state []byte) ([]string, error) {
	const fixed = len(stateMagic) + 4 + 1 + 4
	if len(state) < fixed+sumSize || len(state) > fixed+sumSize+t.max*(1+maxNameText) || string(state[:len(stateMagic)]) != stateMagic {
		return nil, errors.New("no saved names, or of another version")
	}
	body, sum := state[:len(state)-sumSize], blake3.Sum256(state[:len(state)-sumSize])
	if !bytes.Equal(sum[:], state[len(body):]) {
		return nil, errors.New("the saved names are damaged")
	}
	rest := body[len(stateMagic):]
	if pool := netip.PrefixFrom(netip.AddrFrom4([4]byte(rest[:4])), int(rest[4])); pool != t.pool {
		return nil, fmt.Errorf("the saved names belong to the pool %s", pool)
	}
	count := binary.BigEndian.Uint32(rest[5:])
	rest = rest[9:]
	if int64(count) > int64(t.max) || int64(count) > int64(len(rest)) {
		return nil, errors.New("the saved names are too many")
	}
	names := make([]string, 0, count)
	for range count {
		if len(rest) == 0 || int(rest[0]) >= len(rest) || rest[0] > maxNameText {
			return nil, errors.New("the saved names are cut short")
		}
		names = append(names, string(rest[1:1+rest[0]]))
		rest = rest[1+rest[0]:]
	}
	if len(rest) != 0 {
		return nil, errors.New("the saved names have a tail")
	}
	return names, nil
}
