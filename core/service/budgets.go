package service

import (
	"context"
	"slices"
	"strings"

	"capsem/core/api"
	"capsem/core/budget"
	"capsem/core/fault"
	"capsem/core/image"
)

// Budgets is what VMs may spend, and have spent.
func (s *Service) Budgets(ctx context.Context) (api.BudgetsReply, error) {
	reply := api.BudgetsReply{Budgets: []api.Budget{}}
	var lines []budget.Line
	err := s.withBudgets(func(b *budget.Book) (err error) {
		lines, err = b.Lines()
		return err
	})
	if err != nil {
		return reply, err
	}
	names := s.families(ctx, lines)
	for _, l := range lines {
		one := api.Budget{Scope: l.Scope.Kind.String(), Name: l.Scope.Name, Period: l.Period.String(), Meter: l.Meter.String(), Used: l.Used, Held: l.Held}
		if l.Limit != budget.NoLimit {
			limit := l.Limit
			one.Limit = &limit
		}
		if l.Scope.Kind == budget.VM {
			one.Name = names[l.Scope.Name]
		}
		reply.Budgets = append(reply.Budgets, one)
	}
	return reply, nil
}

// families are the names of the VMs that share a budget. Of VMs that are gone it is the name in the index.
func (s *Service) families(ctx context.Context, lines []budget.Line) map[string]string {
	members := map[string][]string{}
	for _, v := range s.all() {
		w := v.view()
		family := w.spec.BudgetFamily()
		members[family] = append(members[family], w.spec.ID)
	}
	out := map[string]string{}
	for _, l := range lines {
		family := l.Scope.Name
		if l.Scope.Kind != budget.VM || out[family] != "" {
			continue
		}
		slices.Sort(members[family])
		if out[family] = strings.Join(members[family], ", "); out[family] != "" {
			continue
		}
		out[family] = family
		if one, err := s.records.index.Session(ctx, family); err == nil && one.Name != "" {
			out[family] = one.Name + " (gone)"
		}
	}
	return out
}

// SetBudget sets a limit, or removes it.
func (s *Service) SetBudget(req api.BudgetRequest) error {
	scope, err := s.scopeOf(req.Scope, req.Name)
	if err != nil {
		return err
	}
	period, meter := budget.Session, budget.Money
	switch req.Period {
	case "session":
	case "day":
		period = budget.Day
	default:
		return fault.New(fault.Invalid, "period is %.40q; it must be session or day", req.Period)
	}
	found := false
	for _, m := range budget.Meters() {
		if m.String() == req.Meter {
			meter, found = m, true
		}
	}
	if !found {
		return fault.New(fault.Invalid, "meter is %.40q; it must be money, tokens, requests or bytes", req.Meter)
	}
	limit := int64(budget.NoLimit)
	if req.Limit != nil {
		if limit = *req.Limit; limit < 0 {
			return fault.New(fault.Invalid, "a limit cannot be less than nothing")
		}
	}
	s.log.Info("budget", "scope", req.Scope, "name", req.Name, "period", req.Period, "meter", req.Meter, "limit", limit)
	return s.withBudgets(func(b *budget.Book) error { return b.Set(scope, period, meter, limit) })
}

// ResetBudget begins to count anew.
func (s *Service) ResetBudget(req api.BudgetResetRequest) error {
	if req.All {
		s.log.Warn("all budgets are forgotten, at the owner's wish")
		return budget.ResetAll(s.opts.Home.Budgets()) //nolint:wrapcheck // says what it did
	}
	scope, err := s.scopeOf(req.Scope, req.Name)
	if err != nil {
		return err
	}
	return s.withBudgets(func(b *budget.Book) error { return b.Reset(scope) })
}

func (s *Service) scopeOf(kind, name string) (budget.Scope, error) {
	switch kind {
	case "install":
		if name != "" {
			return budget.Scope{}, fault.New(fault.Invalid, "the installation has no name")
		}
		return budget.Scope{Kind: budget.Install}, nil
	case "image":
		i, err := image.Images(s.opts.Home).Find(name)
		if err != nil {
			return budget.Scope{}, err //nolint:wrapcheck // a fault
		}
		return budget.Scope{Kind: budget.Image, Name: i.Name}, nil
	case "vm":
		v, err := s.find(name)
		if err != nil {
			return budget.Scope{}, err
		}
		w := v.view()
		return budget.Scope{Kind: budget.VM, Name: w.spec.BudgetFamily()}, nil
	}
	return budget.Scope{}, fault.New(fault.Invalid, "scope is %.40q; it must be install, image or vm", kind)
}

// withBudgets opens the budgets for a moment: the workers are who uses them.
func (s *Service) withBudgets(do func(b *budget.Book) error) error {
	b, err := budget.Open(s.opts.Home.Budgets(), nil)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	err = do(b)
	if closed := b.Close(); err == nil {
		err = closed
	}
	return err
}
