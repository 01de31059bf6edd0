package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"capsem/core/fault"
)

func history(t *testing.T, path string, f Filter) []Entry {
	t.Helper()
	var out []Entry
	for {
		p, err := History(t.Context(), path, f)
		check(t, err)
		out = append(out, p.Entries...)
		if f.After = p.Next; f.After == "" {
			return out
		}
	}
}

func TestHistoryIsNewestFirstAndPagesWithoutGapOrDouble(t *testing.T) {
	path := filled(t, testKey(t), testSession, 30)
	all := history(t, path, Filter{Limit: MaxPage})
	if len(all) != 30*len(Kinds()) {
		t.Fatal(len(all))
	}
	if !slices.IsSortedFunc(all, func(a, b Entry) int { return cmp.Compare(b.Time, a.Time) }) {
		t.Fatal("not newest first")
	}
	for _, limit := range []int{1, 7, 10, 100} {
		paged := history(t, path, Filter{Limit: limit})
		if fmt.Sprint(paged) != fmt.Sprint(all) {
			t.Fatalf("pages of %d: %d entries", limit, len(paged))
		}
	}
}

func TestHistoryFilters(t *testing.T) {
	path := filled(t, testKey(t), testSession, 20)
	base := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		filter Filter
		want   int
	}{
		"one kind":       {Filter{Kinds: []string{"exec"}}, 20},
		"two kinds":      {Filter{Kinds: []string{"exec", "audit"}, Limit: 9}, 40},
		"since":          {Filter{Kinds: []string{"file"}, Since: base.Add(15 * time.Second)}, 5},
		"until":          {Filter{Kinds: []string{"file"}, Until: base.Add(15 * time.Second)}, 15},
		"between":        {Filter{Since: base.Add(3 * time.Second), Until: base.Add(4 * time.Second)}, len(Kinds())},
		"denied":         {Filter{Decision: "denied"}, 20},
		"search":         {Filter{Kinds: []string{"file"}, Search: "SRC/1"}, 11},
		"no wildcard":    {Filter{Search: "%"}, 0},
		"no underscore":  {Filter{Kinds: []string{"file"}, Search: "src_"}, 0},
		"not sql":        {Filter{Search: "' OR 1=1 --"}, 0},
		"search and all": {Filter{Search: "make test", Decision: "allowed"}, 0},
	}
	for name, test := range tests {
		if got := history(t, path, test.filter); len(got) != test.want {
			t.Errorf("%s: %d, not %d", name, len(got), test.want)
		}
	}
	e := history(t, path, Filter{Kinds: []string{"exec"}})[0]
	if e.ID != 20 || e.Fields["command"] != "make test" || e.Fields["exit_code"] != int64(2) || e.Kind != "exec" {
		t.Errorf("%+v", e)
	}
}

func TestHistoryRefusesNonsense(t *testing.T) {
	path := filled(t, testKey(t), testSession, 1)
	for name, f := range map[string]Filter{
		"kind": {Kinds: []string{"chain"}}, "limit": {Limit: MaxPage + 1}, "negative": {Limit: -1}, "after": {After: "x"},
		"after, kind": {After: "2026-11-23T12:00:00.000000Z,nope,1"}, "after, id": {After: "2026-11-23T12:00:00.000000Z,net,x"},
		"after, time": {After: "'; DROP,net,1"}, "search": {Search: string(make([]byte, MaxText+1))},
	} {
		if _, err := History(t.Context(), path, f); codeOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := History(t.Context(), path+"x", Filter{}); codeOf(err) != fault.NotFound {
		t.Error(err)
	}
}

func codeOf(err error) fault.Code {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	return ""
}

func FuzzPlace(f *testing.F) {
	f.Add("2026-11-23T12:00:00.000000Z,net,1")
	f.Add(",,")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePlace(s)
		if err != nil {
			return
		}
		if again, err := parsePlace(p.String()); err != nil || again != p {
			t.Fatalf("%q: %+v, %+v, %v", s, p, again, err)
		}
	})
}

func TestStatsSumUp(t *testing.T) {
	path := filled(t, testKey(t), testSession, 8)
	s, err := Stats(t.Context(), path)
	check(t, err)
	want := Totals{
		Requests: 8, Allowed: 8, BytesSent: 96, BytesReceived: 27200, DNSQueries: 8, DNSDenied: 8, ModelCalls: 8, InputTokens: 800, OutputTokens: 400,
		CostUSD: 2, ToolCalls: 8, MCPCalls: 8, FileEvents: 8, Snapshots: 8, Execs: 8, AuditEvents: 8, Approvals: 8, Lost: 24, Rows: 8 * rowsOfEach,
		Domains: []DomainCount{{Domain: "example.com", Requests: 8}}, First: "2026-11-23T12:00:00.000000Z", Last: "2026-11-23T12:00:07.000000Z",
		Models: []ModelCount{{Provider: "anthropic", Model: "m", Calls: 8, InputTokens: 800, OutputTokens: 400, CostUSD: 2}},
	}
	if fmt.Sprintf("%+v", s) != fmt.Sprintf("%+v", want) {
		t.Fatalf("%+v\nnot\n%+v", s, want)
	}
}

func TestProcessesAreCounted(t *testing.T) {
	path := filled(t, testKey(t), testSession, 4)
	got, err := Processes(t.Context(), path)
	if err != nil || fmt.Sprint(got) != "[{/bin/ls 4 2026-11-23T12:00:00.000000Z 2026-11-23T12:00:03.000000Z}]" {
		t.Fatal(got, err)
	}
}
