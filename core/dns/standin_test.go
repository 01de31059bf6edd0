package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
)

func newTestTable(t testing.TB, pool string, limit int) *table {
	t.Helper()
	tab, err := newTable(netip.MustParsePrefix(pool), limit)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestEveryAddressOfThePoolHasOneName(t *testing.T) {
	tab := newTestTable(t, "100.64.0.0/22", 1<<20)
	seen := map[netip.Addr]bool{}
	for i := range perRow * 4 {
		name := fmt.Sprintf("n%d.test", i)
		addr, added, err := tab.assign(name)
		last := addr.As4()[3]
		if back, ok := tab.name(addr); err != nil || !added || !ok || back != name || seen[addr] || last == 0 || last == 255 || !tab.pool.Contains(addr) {
			t.Fatalf("%d: %s is %q: %v", i, addr, back, err)
		}
		seen[addr] = true
	}
	if _, _, err := tab.assign("more.test"); err == nil {
		t.Fatal("an address outside the pool is given")
	}
	for _, text := range []string{"100.64.0.0", "100.64.0.255", "100.63.255.255", "100.64.4.1", "::1", "8.8.8.8"} {
		if name, ok := tab.name(netip.MustParseAddr(text)); ok {
			t.Errorf("%s is %q", text, name)
		}
	}
	if name, ok := tab.name(netip.MustParseAddr("::ffff:100.64.0.1")); !ok || name != "n0.test" {
		t.Error("the mapped form of an address has no name")
	}
}

func TestNamesSurviveExportAndImport(t *testing.T) {
	a := newTestTable(t, "100.64.0.0/16", 1000)
	for i := range 300 {
		_, _, _ = a.assign(fmt.Sprintf("n%d.test", i))
	}
	b := newTestTable(t, "100.64.0.0/16", 1000)
	_, _, _ = b.assign("forgotten.test")
	if err := b.restore(a.export()); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		name := fmt.Sprintf("n%d.test", i)
		was, _ := a.find(name)
		if is, ok := b.find(name); !ok || is != was {
			t.Fatalf("%s was %s and is %s", name, was, is)
		}
	}
	if _, ok := b.find("forgotten.test"); ok {
		t.Fatal("names of before are there")
	}
	if next, _, _ := b.assign("new.test"); next != a.address(300) {
		t.Fatalf("the next name gets %s", next)
	}
}

// state builds an export with a right hash around whatever names.
func state(pool string, count uint32, names ...string) []byte {
	p := netip.MustParsePrefix(pool)
	b := p.Addr().As4()
	out := append(append([]byte(stateMagic), b[:]...), byte(p.Bits()), byte(count>>24), byte(count>>16), byte(count>>8), byte(count))
	for _, n := range names {
		out = append(append(out, byte(len(n))), n...)
	}
	sum := blake3.Sum256(out)
	return append(out, sum[:]...)
}

func TestImportRefusesDamage(t *testing.T) {
	good := state("100.64.0.0/16", 2, "a.test", "b.test")
	tab := newTestTable(t, "100.64.0.0/16", 4)
	if err := tab.restore(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if tab.restore(bad) == nil || tab.restore(good[:i]) == nil {
			t.Fatalf("damage at byte %d is not seen", i)
		}
	}
	for name, bad := range map[string][]byte{
		"another pool":     state("100.65.0.0/16", 1, "a.test"),
		"more than said":   state("100.64.0.0/16", 1, "a.test", "b.test"),
		"fewer than said":  state("100.64.0.0/16", 3, "a.test", "b.test"),
		"a huge number":    state("100.64.0.0/16", 1<<31, "a.test"),
		"too many":         state("100.64.0.0/16", 5, "a.test", "b.test", "c.test", "d.test", "e.test"),
		"a name twice":     state("100.64.0.0/16", 2, "a.test", "a.test"),
		"no name":          state("100.64.0.0/16", 1, ""),
		"capitals":         state("100.64.0.0/16", 1, "A.test"),
		"a dot at the end": state("100.64.0.0/16", 1, "a.test."),
		"an address":       state("100.64.0.0/16", 1, "10.0.0.1"),
		"control bytes":    state("100.64.0.0/16", 1, "a\n.test"),
	} {
		if tab.restore(bad) == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, ok := tab.find("b.test"); !ok || len(tab.names) != 2 {
		t.Error("a refused state has changed the table")
	}
}
