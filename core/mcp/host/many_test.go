package host_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/gateway"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func approvedPins(t testing.TB, dir string) *mcp.Pins {
	t.Helper()
	return mcp.OpenPins(filepath.Join(dir, "pins.json"))
}

// offerMany has servers offer tools, which are approved.
func offerMany(g *gateway.Gateway, servers, tools int) {
	var expected []string
	for i := range servers {
		o := &aggregator.Offering{Server: fmt.Sprintf("server-%02d", i), Up: true}
		for j := range tools {
			o.Tools = append(o.Tools, fmt.Appendf(nil, `{"name":"tool_%02d","description":"does number %d","inputSchema":{"type":"object","properties":{"x":{"type":"string"}}}}`, j, j))
		}
		expected = append(expected, o.Server)
		g.Offered(o)
	}
	g.Expect(expected)
}

func TestManyToolsAreListedInPages(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir()}
	pins := approvedPins(t, r.dir)
	r.gateway = gateway.New(gateway.Config{VM: "vm", Judge: r, Record: r.record, Pins: pins, Log: quiet()})
	offerMany(r.gateway, 20, 40)
	s := r.client(nil)
	if n := len(names(t, s)); n != 0 {
		t.Errorf("%d tools are listed that nobody has approved", n)
	}
	for i := range 20 {
		if _, err := pins.Approve(fmt.Sprintf("server-%02d", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return len(names(t, s)) == 800 })
}
