package localapi_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/budget"
	"capsem/core/fault"
	"capsem/core/proto"
)

func TestBudgetsAreSetShownSpentAndReset(t *testing.T) {
	s := serve(t)
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "dev"}); err != nil {
		t.Fatal(err)
	}
	for _, req := range []api.BudgetRequest{
		{Scope: "vm", Name: "dev", Period: "session", Meter: "requests", Limit: new(int64(3))},
		{Scope: "install", Period: "day", Meter: "money", Limit: new(int64(5_000_000_000))},
		{Scope: "install", Period: "session", Meter: "tokens", Limit: new(int64(1000))},
		{Scope: "vm", Name: "dev", Period: "day", Meter: "bytes", Limit: new(int64(7))},
		{Scope: "vm", Name: "dev", Period: "day", Meter: "bytes"},
	} {
		if err := s.SetBudget(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	// A worker of that VM spends.
	spec := specOf(t, s, "dev")
	book, err := budget.Open(s.home.Budgets(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	hold, err := book.Account(spec.BudgetFamily(), spec.Image).Reserve(budget.Amount{budget.Requests: 1, budget.Money: 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Settle(budget.Amount{budget.Requests: 1, budget.Money: 10}); err != nil {
		t.Fatal(err)
	}
	want := "install  day money 5000000000 10; install  session tokens 1000 0; install  day requests -1 1; vm dev day money -1 10; vm dev session money -1 10; vm dev day requests -1 1; vm dev session requests 3 1; "
	if got := shown(t, s); !sameParts(got, want) {
		t.Errorf("%s, want\n%s", got, want)
	}
	if err := s.ResetBudget(t.Context(), api.BudgetResetRequest{Scope: "vm", Name: "dev"}); err != nil {
		t.Fatal(err)
	}
	if got, want := shown(t, s), "install  day money 5000000000 10; install  session tokens 1000 0; install  day requests -1 1; vm dev session requests 3 0; "; !sameParts(got, want) {
		t.Errorf("%s, want\n%s", got, want)
	}
	if err := s.ResetBudget(t.Context(), api.BudgetResetRequest{All: true}); err != nil {
		t.Fatal(err)
	}
	if got := shown(t, s); got != "" {
		t.Error(got)
	}
}

func TestAForkSharesTheBudgetOfItsParent(t *testing.T) {
	s := serve(t)
	for _, step := range []func() error{
		func() error { _, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "dev"}); return err },
		func() error { _, err := s.Stop(t.Context(), "dev"); return err },
		func() error { _, err := s.Fork(t.Context(), "dev", api.ForkRequest{Image: "work"}); return err },
		func() error {
			_, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "child", Image: "work"})
			return err
		},
		func() error { _, err := s.Stop(t.Context(), "child"); return err },
		func() error { _, err := s.Fork(t.Context(), "child", api.ForkRequest{Image: "work2"}); return err },
		func() error {
			_, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "grandchild", Image: "work2"})
			return err
		},
		func() error { _, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "other"}); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	dev, child, grandchild, other := specOf(t, s, "dev"), specOf(t, s, "child"), specOf(t, s, "grandchild"), specOf(t, s, "other")
	if dev.BudgetFamily() != dev.Session() || child.BudgetFamily() != dev.BudgetFamily() || grandchild.BudgetFamily() != dev.BudgetFamily() || other.BudgetFamily() == dev.BudgetFamily() {
		t.Error(dev.BudgetFamily(), child.BudgetFamily(), grandchild.BudgetFamily(), other.BudgetFamily())
	}
	if err := s.SetBudget(t.Context(), api.BudgetRequest{Scope: "vm", Name: "child", Period: "session", Meter: "requests", Limit: new(int64(3))}); err != nil {
		t.Fatal(err)
	}
	if got := shown(t, s); got != "vm child, dev, grandchild session requests 3 0; " {
		t.Error(got)
	}
}

func TestBadBudgetsAreRefused(t *testing.T) {
	s := serve(t)
	for name, c := range map[string]struct {
		req  api.BudgetRequest
		code fault.Code
	}{
		"unknown VM":    {api.BudgetRequest{Scope: "vm", Name: "nobody", Period: "day", Meter: "money", Limit: new(int64(1))}, fault.NotFound},
		"unknown image": {api.BudgetRequest{Scope: "image", Name: "none", Period: "day", Meter: "money", Limit: new(int64(1))}, fault.NotFound},
		"scope":         {api.BudgetRequest{Scope: "all", Period: "day", Meter: "money", Limit: new(int64(1))}, fault.Invalid},
		"a name":        {api.BudgetRequest{Scope: "install", Name: "x", Period: "day", Meter: "money", Limit: new(int64(1))}, fault.Invalid},
		"period":        {api.BudgetRequest{Scope: "install", Period: "week", Meter: "money", Limit: new(int64(1))}, fault.Invalid},
		"meter":         {api.BudgetRequest{Scope: "install", Period: "day", Meter: "euros", Limit: new(int64(1))}, fault.Invalid},
		"less than 0":   {api.BudgetRequest{Scope: "install", Period: "day", Meter: "money", Limit: new(int64(-5))}, fault.Invalid},
	} {
		if err := s.SetBudget(t.Context(), c.req); !fault.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func shown(t *testing.T, s *served) string {
	t.Helper()
	reply, err := s.Budgets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, b := range reply.Budgets {
		n := int64(-1)
		if b.Limit != nil {
			n = *b.Limit
		}
		fmt.Fprintf(&text, "%s %s %s %s %d %d; ", b.Scope, b.Name, b.Period, b.Meter, n, b.Used)
	}
	return text.String()
}

// sameParts compares lists whose order does not count.
func sameParts(a, b string) bool {
	parts := func(s string) string {
		all := strings.Split(s, "; ")
		slices.Sort(all)
		return strings.Join(all, "; ")
	}
	return parts(a) == parts(b)
}

// specOf is what the VM's worker was told.
func specOf(t *testing.T, s *served, name string) *proto.VMSpec {
	t.Helper()
	text, err := os.ReadFile(s.home.Persistent(name).Spec())
	if err != nil {
		t.Fatal(err)
	}
	var spec proto.VMSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	return &spec
}
