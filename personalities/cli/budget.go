package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/inspect/price"
)

func (s *session) budgetCommand() *cli.Command {
	whose := func() []cli.Flag {
		return []cli.Flag{&cli.StringFlag{Name: "vm", Usage: "of `VM`, and its forks"}, &cli.StringFlag{Name: "image", Usage: "of VMs of `IMAGE`"}}
	}
	return &cli.Command{
		Name: "budget", Category: groupRecords, Usage: "what VMs may spend", UsageText: "budget COMMAND ...",
		Description: "Limits what VMs may spend on models, in money, tokens and requests, and how many bytes they may move. What a request may\n" +
			"need is reserved before it is sent; one that a limit does not allow is refused, and an answer that would pass one is cut.",
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "set a limit", UsageText: "budget set [--vm VM | --image IMAGE] [--per session|day] METER=AMOUNT...",
				Flags: append(whose(), &cli.StringFlag{Name: "per", Usage: "for `session` or day", Value: "day"}),
				Description: "METER is money (in dollars), tokens, requests or bytes: money=5 tokens=2M requests=100 bytes=1G; none removes a limit.\n" +
					"Without --vm or --image a day's limit is of all VMs together, and a session's of each of them.",
				Action: action(s.budgetSet),
			},
			{Name: "show", Usage: "limits, and what is used", UsageText: "budget show [--json]", Flags: []cli.Flag{jsonFlag()}, Action: show(s, 0, 0, func(ctx context.Context, svc *client.Client, _ []string) (api.BudgetsReply, error) {
				return svc.Budgets(ctx)
			}, budgetText)},
			{
				Name: "reset", Usage: "count from nothing again", UsageText: "budget reset [--vm VM | --image IMAGE | --all]",
				Flags:       append(whose(), &cli.BoolFlag{Name: "all", Usage: "forget every budget, limits too"}),
				Description: "Forgets what is used; the limits stay, but for --all, which also helps where the record of budgets is damaged.",
				Action:      action(s.budgetReset),
			},
		},
	}
}

// scopeOf is whose budget flags mean.
func scopeOf(c *cli.Context) (scope, name string, err error) {
	vm, image := c.String("vm"), c.String("image")
	switch {
	case vm != "" && image != "":
		return "", "", fault.New(fault.Invalid, "--vm and --image exclude each other")
	case vm != "":
		return "vm", vm, nil
	case image != "":
		return "image", image, nil
	}
	return "install", "", nil
}

func (s *session) budgetSet(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, -1)
	if err != nil {
		return err
	}
	scope, name, err := scopeOf(c)
	if err != nil {
		return err
	}
	var requests []api.BudgetRequest
	for _, arg := range args {
		meter, text, ok := strings.Cut(arg, "=")
		if !ok {
			return fault.New(fault.Invalid, "%.60q is no limit", arg).WithHint("such as: capsem budget set --per day money=5 requests=1000")
		}
		limit, err := amount(meter, text)
		if err != nil {
			return err
		}
		requests = append(requests, api.BudgetRequest{Scope: scope, Name: name, Period: c.String("per"), Meter: meter, Limit: limit})
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	for _, req := range requests {
		if err := svc.SetBudget(ctx, req); err != nil {
			return err //nolint:wrapcheck // a fault
		}
	}
	return nil
}

// amount reads how much of a meter is meant; nil is no limit.
func amount(meter, text string) (*int64, error) {
	if text == "none" {
		return nil, nil //nolint:nilnil // nil is a value here
	}
	bad := fault.New(fault.Invalid, "%.40q is no amount of %.40s", text, meter).WithHint("such as: money=2.50, tokens=2M, requests=100, bytes=500M, or none")
	if meter == "money" {
		n, err := price.Parse(text)
		if err != nil {
			return nil, bad
		}
		nano := int64(n)
		return &nano, nil
	}
	times := int64(1)
	if n := len(text); n > 0 {
		if i := strings.IndexByte("kmgt", text[n-1]|0x20); i >= 0 {
			unit := int64(1000)
			if meter == "bytes" {
				unit = 1024
			}
			for range i + 1 {
				times *= unit
			}
			text = text[:n-1]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<60)/times {
		return nil, bad
	}
	n *= times
	return &n, nil
}

func budgetText(_ *cli.Context, reply api.BudgetsReply) string {
	if len(reply.Budgets) == 0 {
		return "there are no limits, and nothing was spent\n"
	}
	t := newTable("OF", "PER", "METER", "LIMIT", "USED", "RESERVED")
	for _, one := range reply.Budgets {
		whose, limit, used, held := strings.TrimSpace(one.Scope+" "+one.Name), "none", meterText(one.Meter, one.Used), ""
		if one.Limit != nil {
			limit = meterText(one.Meter, *one.Limit)
		}
		if one.Held > 0 {
			held = meterText(one.Meter, one.Held)
		}
		if one.Period == "session" && one.Scope != "vm" {
			used = "(each VM)"
		}
		t.row(whose, one.Period, one.Meter, limit, used, held)
	}
	return t.String()
}

func meterText(meter string, n int64) string {
	switch meter {
	case "money":
		return "$" + price.Nano(n).String()
	case "bytes":
		return byteSize(n)
	}
	return strconv.FormatInt(n, 10)
}

func (s *session) budgetReset(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	scope, name, err := scopeOf(c)
	if err != nil {
		return err
	}
	req := api.BudgetResetRequest{Scope: scope, Name: name}
	if c.Bool("all") {
		if scope != "install" {
			return fault.New(fault.Invalid, "--all is of everything: leave --vm and --image out")
		}
		req = api.BudgetResetRequest{All: true}
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	return svc.ResetBudget(ctx, req) //nolint:wrapcheck // a fault
}
