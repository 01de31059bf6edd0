package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
)

func (s *session) approveCommand() *cli.Command {
	return &cli.Command{
		Name: "approve", Aliases: []string{"approvals"}, Category: groupRecords, Usage: "answer what VMs ask", UsageText: "approve [flags] [QUESTION [once|session|always|deny]]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "watch", Usage: "show questions as they come"},
			&cli.BoolFlag{Name: "host", Usage: "with session or always: any path of that host"}, jsonFlag(),
		},
		Description: "Lists what waits for you: requests that a rule of the policy asks about are held until you answer. once (the default) lets\n" +
			"this request through, session the same as long as the VM lives, always adds a rule to policy.toml, deny refuses it.",
		Action: action(s.approve),
	}
}

func (s *session) approve(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 0, 2)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	show := func(reply api.ApprovalsReply) error {
		if c.Bool("json") {
			return s.printJSON(reply)
		}
		return s.print(questionsText(reply))
	}
	switch {
	case len(args) > 0:
		req := api.AnswerRequest{Answer: "once", By: "cli"}
		if len(args) == 2 {
			req.Answer = args[1]
		}
		if c.Bool("host") {
			req.Reach = "host"
		}
		reply, err := svc.Answer(ctx, args[0], req)
		if err != nil {
			return err //nolint:wrapcheck // a fault
		}
		if c.Bool("json") {
			return s.printJSON(reply)
		}
		return s.print(clean(reply.VM) + ": " + clean(req.Answer) + "\n" + reply.Rule)
	case c.Bool("watch"):
		err := svc.WatchApprovals(ctx, show)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err //nolint:wrapcheck // says what it did
	}
	reply, err := svc.Approvals(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return show(reply)
}

// questionsText is the questions for a reader, each with its answers.
func questionsText(reply api.ApprovalsReply) string {
	var b strings.Builder
	for _, text := range reply.Pending {
		var q api.Question
		if json.Unmarshal(text, &q) != nil {
			continue
		}
		what := strings.TrimSpace(q.Method + " " + q.URL)
		switch {
		case q.MCPServer != "":
			what = "tool " + q.MCPServer + " " + q.MCPTool
		case what == "":
			what = fmt.Sprintf("TCP %s:%d", q.Host, q.Port)
		}
		fmt.Fprintf(&b, "%s  %s: %s", clean(q.ID), clean(q.VM), clean(what))
		if q.Size > 0 {
			fmt.Fprintf(&b, " (%s)", byteSize(q.Size))
		}
		if q.MCPArgs != "" {
			b.WriteString("\n    with " + clean(q.MCPArgs))
		}
		if q.Cut {
			b.WriteString("\n    (this is not all of it)")
		}
		fmt.Fprintf(&b, "\n    by %s (%d): %s\n    rule %s", clean(q.Process.Name), q.Process.PID, clean(q.Process.CommandLine), clean(q.Rule))
		if q.Reason != "" {
			b.WriteString(": " + clean(q.Reason))
		}
		b.WriteString("\n")
		for _, choice := range q.Choices {
			flag := ""
			if choice.Reach == "host" {
				flag = "--host "
			}
			fmt.Fprintf(&b, "    capsem approve %s%s %-8s %s\n", flag, clean(q.ID), clean(choice.Answer), clean(choice.Allows))
		}
	}
	if n := reply.Waiting - len(reply.Pending); n > 0 {
		fmt.Fprintf(&b, "and %d more\n", n)
	}
	return b.String()
}
