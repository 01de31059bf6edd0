package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/policy"
)

func (s *session) policyCommand() *cli.Command {
	return &cli.Command{
		Name: "policy", Category: groupRecords, Usage: "what VMs may reach", UsageText: "policy COMMAND ...",
		Description: "What VMs may reach is written in policy.toml in CAPSEM_HOME, and above that in /etc/capsem/policy.toml; what no rule allows\n" +
			"is refused. An edit holds at once. A file may begin with presets = [\"claude\", \"github\"]. Tables [[git]] decide about\n" +
			"repositories and branches: policy presets git-agent shows some.",
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "what would be said to a request", UsageText: "policy check [--as VM] [--explain] METHOD URL|DNS NAME|TCP HOST:PORT|MCP SERVER TOOL|GIT push REPO [REF [KIND]]",
				Flags:       []cli.Flag{asFlag(), &cli.BoolFlag{Name: "explain", Usage: "what each rule said"}, jsonFlag()},
				Description: "Says what the policy would say to a request, and which rule says it. Nothing is sent.",
				Action:      action(s.policyCheck),
			},
			{
				Name: "lint", Usage: "rules that do not do what they seem to", UsageText: "policy lint [--as VM] [FILE]", Flags: []cli.Flag{asFlag(), jsonFlag()},
				Description: "Looks for rules that never decide, allow more than they seem to, or that a guest can get around.",
				Action:      action(s.policyLint),
			},
			{
				Name: "test", Usage: "a table of expected verdicts", UsageText: "policy test [--as VM] FILE", Flags: []cli.Flag{asFlag()},
				Description: "Judges each request in a table (TOML, [[case]] with request and expect) and fails if one gets another verdict than expected.",
				Action:      action(s.policyTest),
			},
			{
				Name: "presets", Usage: "the rules that capsem ships", UsageText: "policy presets [NAME]",
				Description: "Lists the presets, or prints the rules of one.", Action: action(s.policyPresets),
			},
			{
				Name: "suggest", Usage: "rules for what was refused", UsageText: "policy suggest VM|SESSION",
				Description: "Prints the narrowest rules that would have allowed what was refused in a session, for policy.toml. Read them before you use them.",
				Action:      action(s.policySuggest),
			},
		},
	}
}

func asFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "as", Usage: "with the own rules of `VM`"}
}

// loadPolicy reads the rules that hold, for a VM if one is named.
func (s *session) loadPolicy(ctx context.Context, c *cli.Context) (*policy.Policy, error) {
	var vm paths.VM
	if name := c.String("as"); name != "" {
		svc, err := s.service(ctx)
		if err != nil {
			return nil, err
		}
		info, err := svc.Info(ctx, name)
		if err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
		vm = paths.VM(info.Dir)
	}
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	return config.LoadPolicy(config.PolicyFiles(home, vm)) //nolint:wrapcheck // a fault
}

func (s *session) policyCheck(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, 5)
	if err != nil {
		return err
	}
	if args[0] == "GIT" && len(args) > 2 {
		return s.policyCheckGit(ctx, c, args[1:])
	}
	req, err := policy.ParseRequest(strings.Join(args, " "))
	if err != nil {
		return fault.New(fault.Invalid, "%s", fault.Line(err)).WithHint("such as: capsem policy check GET https://example.com/path")
	}
	req.VM = c.String("as")
	p, err := s.loadPolicy(ctx, c)
	if err != nil {
		return err
	}
	v, steps := p.Explain(&req, false)
	if c.Bool("json") {
		return s.printJSON(map[string]any{"verdict": v.Effect.String(), "rule": v.RuleID, "layer": layerText(v.Layer), "reason": v.Reason, "request": req.String(), "error": v.Err})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s by %s", clean(req.String()), v.Effect, clean(v.RuleID))
	if v.Layer != 0 {
		fmt.Fprintf(&b, " (%s)", v.Layer)
	}
	if v.Reason != "" {
		b.WriteString(", " + clean(v.Reason))
	}
	b.WriteString("\n")
	if v.Doubt {
		b.WriteString("  there is more than one way to read this request; the more severe verdict counts\n")
	}
	if v.Err != "" {
		b.WriteString("  " + clean(v.Err) + "\n")
	}
	if c.Bool("explain") {
		for _, step := range steps {
			fmt.Fprintf(&b, "  %-8s %-30s %-6s %s", step.Layer, clean(step.RuleID), step.Effect, step.Outcome)
			if step.Outcome != "yes" && step.Fact != 0 {
				fmt.Fprintf(&b, " (%s)", step.Fact)
			}
			b.WriteString("\n")
		}
	}
	return s.print(b.String())
}

func layerText(l policy.Layer) string {
	if l == 0 {
		return ""
	}
	return l.String()
}

func (s *session) policyLint(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 0, 1)
	if err != nil {
		return err
	}
	var p *policy.Policy
	if len(args) == 1 {
		if _, err := os.Stat(args[0]); err != nil {
			return fault.Wrap(err, fault.NotFound, "cannot read %s", args[0])
		}
		p, err = config.LoadPolicy([]config.PolicyFile{{Path: args[0], Layer: policy.LayerUser}})
	} else {
		p, err = s.loadPolicy(ctx, c)
	}
	if err != nil {
		return err
	}
	findings := policy.Lint(p)
	if c.Bool("json") {
		return s.printJSON(findings)
	}
	var b strings.Builder
	bad := 0
	for _, f := range findings {
		b.WriteString(clean(f.String()) + "\n")
		if f.Severity == policy.SeverityError {
			bad++
		}
	}
	if err := s.print(b.String()); err != nil {
		return err
	}
	if bad > 0 {
		return fault.New(fault.Invalid, "%d rules do not do what they say", bad)
	}
	return nil
}

// maxTable bounds a table of expected verdicts, in bytes.
const maxTable = 4 << 20

func (s *session) policyTest(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return fault.Wrap(err, fault.NotFound, "cannot read %s", args[0])
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "cannot read %s", args[0])
	}
	table, err := policy.ParseTable(string(text))
	if err != nil {
		return fault.New(fault.Invalid, "%s: %s", args[0], fault.Line(err))
	}
	p, err := s.loadPolicy(ctx, c)
	if err != nil {
		return err
	}
	failed := policy.Failed(policy.RunTests(p, table))
	var b strings.Builder
	for _, r := range failed {
		b.WriteString(clean(r.Message) + "\n")
	}
	fmt.Fprintf(&b, "%d of %d as expected\n", len(table)-len(failed), len(table))
	if err := s.print(b.String()); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fault.New(fault.Invalid, "%d verdicts are not as expected", len(failed))
	}
	return nil
}

func (s *session) policyPresets(_ context.Context, c *cli.Context) error {
	args, err := words(c, 0, 1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return s.print(strings.Join(policy.Presets(), "\n") + "\n")
	}
	text, err := policy.PresetText(args[0])
	if err != nil {
		return fault.New(fault.NotFound, "there is no preset %.60q", args[0]).WithHint("capsem policy presets lists them")
	}
	return s.print(text)
}

func (s *session) policySuggest(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	text, err := svc.SuggestPolicy(ctx, args[0])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if text == "" {
		text = "# nothing was refused that a rule could allow\n"
	}
	return s.print(text)
}
