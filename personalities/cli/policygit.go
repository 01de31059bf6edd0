package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
	"capsem/core/policy"
)

// gitRequest reads "push HOST/REPOSITORY REF KIND".
func gitRequest(args []string) (*policy.GitRequest, error) {
	bad := func(what string) error {
		return fault.New(fault.Invalid, "%s", what).WithHint("such as: capsem policy check GIT push github.com/owner/repository refs/heads/agent/x update")
	}
	ops := []string{policy.GitClone, policy.GitFetch, policy.GitPush}
	kinds := []string{policy.GitCreate, policy.GitUpdate, policy.GitForce, policy.GitDelete}
	host, repo, ok := strings.Cut(strings.TrimPrefix(args[1], "https://"), "/")
	name, err := policy.NormalHost(host)
	switch {
	case !slices.Contains(ops, args[0]):
		return nil, bad("an operation of git is " + strings.Join(ops, ", "))
	case !ok || repo == "" || err != nil:
		return nil, bad("the repository is missing")
	case len(args) > 2 && (args[0] != policy.GitPush || !strings.HasPrefix(args[2], "refs/")):
		return nil, bad("a ref is for a push, and written out: refs/heads/main")
	case len(args) > 3 && !slices.Contains(kinds, args[3]):
		return nil, bad("a push is one of " + strings.Join(kinds, ", "))
	}
	req := &policy.GitRequest{Host: name, Repo: strings.TrimSuffix(repo, ".git"), Ops: args[:1]}
	if len(args) > 2 {
		req.Ref = args[2]
	}
	if len(args) > 3 {
		req.Kind = args[3]
	}
	return req, nil
}

// policyCheckGit says what the git rules say.
func (s *session) policyCheckGit(ctx context.Context, c *cli.Context, args []string) error {
	req, err := gitRequest(args)
	if err != nil {
		return err
	}
	p, err := s.loadPolicy(ctx, c)
	if err != nil {
		return err
	}
	v := p.Git(req)
	if c.Bool("json") {
		return s.printJSON(map[string]any{"verdict": v.Effect.String(), "rule": v.RuleID, "layer": layerText(v.Layer), "reason": v.Reason, "request": "GIT " + strings.Join(args, " ")})
	}
	text := clean("GIT " + strings.Join(args, " "))
	if v.RuleID == "" {
		return s.print(text + ": no git rule speaks of this; the rules on connections decide\n")
	}
	text += ": " + v.Effect.String() + " by " + clean(v.RuleID)
	if v.Layer != 0 {
		text += " (" + v.Layer.String() + ")"
	}
	if v.Reason != "" {
		text += ", " + clean(v.Reason)
	}
	return s.print(text + "\n")
}
