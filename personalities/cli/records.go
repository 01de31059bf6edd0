package cli

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
)

func (s *session) historyCommand() *cli.Command {
	return &cli.Command{
		Name: "history", Category: groupRecords, Usage: "what happened", UsageText: "history [flags] [VM|SESSION]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kind", Usage: "only these `KINDS`: exec,file,net,dns,mcp,model,snapshot,audit,approval,lifecycle"},
			&cli.StringFlag{Name: "search", Usage: "only what contains this `TEXT`"},
			&cli.StringFlag{Name: "decision", Usage: "only what was `allowed`, denied or error"},
			&cli.StringFlag{Name: "since", Usage: "from a `TIME` on: 10m (ago), or 2026-01-31T12:00:00Z"},
			&cli.IntFlag{Name: "tail", Aliases: []string{"n"}, Usage: "the last `N`", Value: defaultTail}, jsonFlag(),
		},
		Description: "Lists what happened in a VM, the newest last: commands, files, connections, questions. The record outlives the VM. Without\n" +
			"a VM it lists the sessions there were: a session is the life of one VM.",
		Action: action(s.history),
	}
}

// defaultTail is how many events history shows.
const defaultTail = 50

func (s *session) history(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 0, 1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return s.sessions(ctx, c)
	}
	query, err := historyQuery(c)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	page, err := svc.History(ctx, args[0], query)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(page)
	}
	t := newTable()
	for _, e := range slices.Backward(page.Entries) {
		t.row(localTime(e.Time), e.Kind, entryText(e))
	}
	if page.Next != "" {
		fmt.Fprintf(s.env.Stderr, "capsem: there are older ones: capsem history -n %d %s\n", min(10*max(c.Int("tail"), 1), maxTail), args[0])
	}
	return s.print(t.String())
}

// maxTail is what one answer can hold.
const maxTail = 1000

func historyQuery(c *cli.Context) (url.Values, error) {
	query := url.Values{}
	for _, name := range []string{"kind", "search", "decision"} {
		if v := c.String(name); v != "" {
			query.Set(name, v)
		}
	}
	if n := c.Int("tail"); n < 1 || n > maxTail {
		return nil, fault.New(fault.Invalid, "--tail is %d; it must be a number from 1 to %d", n, maxTail)
	}
	query.Set("limit", strconv.Itoa(c.Int("tail")))
	if since := c.String("since"); since != "" {
		at, err := time.Parse(time.RFC3339, since)
		if ago, bad := time.ParseDuration(since); bad == nil {
			at, err = time.Now().Add(-ago.Abs()), nil
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "--since is %.60q; it must be a time such as 2026-01-31T12:00:00Z, or 10m for ten minutes ago", since)
		}
		query.Set("since", at.UTC().Format(time.RFC3339Nano))
	}
	return query, nil
}

// localTime is a time of the record for a reader: in the zone of this machine, to the millisecond.
func localTime(text string) string {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return clean(text)
	}
	return t.Local().Format("2006-01-02 15:04:05.000")
}

// entryText is an event in one line: what counts most first.
func entryText(e api.RecordEntry) string {
	get := func(name string) string {
		if v, ok := e.Fields[name]; ok {
			return clean(fmt.Sprint(v))
		}
		return ""
	}
	switch e.Kind {
	case "exec":
		return get("command") + "  (exit " + get("exit_code") + ", " + get("duration_ms") + " ms)"
	case "audit":
		text := get("exe") + "  " + get("argv")
		if code := get("exit_code"); code != "0" {
			text += "  (error " + code + ")"
		}
		return text
	case "file":
		return get("action") + " " + get("path")
	case "lifecycle":
		return strings.TrimSpace(get("event") + " " + get("detail"))
	case "net":
		return strings.TrimSpace(get("decision") + " " + get("method") + " " + get("domain") + get("path") + " " + get("status_code") + " " + get("matched_rule"))
	case "mcp":
		text := get("decision") + " " + get("method") + " " + get("server_name") + "/" + get("tool_name") + " " + get("matched_rule")
		if id := get("ask_id"); id != "" {
			text += "  (asked: " + id + ")"
		}
		return strings.TrimSpace(text)
	case "approval":
		return strings.TrimSpace(get("status") + " " + get("method") + " " + get("url") + " " + get("matched_rule") + "  (asked: " + get("ask_id") + ")")
	case "dns":
		return strings.TrimSpace(get("decision") + " " + get("query_type") + " " + get("name") + " " + get("response_code"))
	}
	if e.Kind == "model" {
		return callText(get)
	}
	if e.Kind == "substitution" {
		return strings.TrimSpace(get("action") + " secret " + get("credential") + " " + get("domain") + " " + get("place"))
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
		all = append(all, name+"="+get(name))
	}
	return strings.Join(all, " ")
}

// callText is a call of a model in one line; capsem models says more.
func callText(get func(string) string) string {
	text := get("provider") + " " + get("model") + " " + get("status_code")
	if in, out := get("input_tokens"), get("output_tokens"); in+out != "" {
		text += "  " + in + " tokens in, " + out + " out"
	}
	if stop := get("stop_reason"); stop != "" {
		text += "  " + stop
	}
	return strings.TrimSpace(text)
}

func (s *session) sessions(ctx context.Context, c *cli.Context) error {
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.Sessions(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	table, count := newTable("SESSION", "VM", "STATUS", "COMMANDS", "FILES", "REQUESTS", "DENIED", "SIZE"), func(n int64) string { return strconv.FormatInt(n, 10) }
	for _, one := range reply.Sessions {
		t := one.Totals
		table.row(one.ID, one.Name, one.Status, count(t.Execs), count(t.FileEvents), count(t.Requests), count(t.Denied), byteSize(one.DBBytes))
	}
	return s.print(table.String())
}

func (s *session) inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Category: groupRecords, Usage: "ask a record in SQL", UsageText: "inspect [--json] VM|SESSION|_main SQL", Flags: []cli.Flag{jsonFlag()},
		Description: "Answers one reading SQL statement about the record of a VM (tables exec_events, fs_events, net_events, dns_events and so on;\n" +
			"SELECT name FROM sqlite_schema lists them), or about _main, the index of all sessions.",
		Action: show(s, 2, 2, func(ctx context.Context, svc *client.Client, args []string) (api.InspectReply, error) {
			return svc.Inspect(ctx, args[0], args[1])
		}, rowsText),
	}
}

func rowsText(_ *cli.Context, reply api.InspectReply) string {
	t := newTable(reply.Columns...)
	for _, row := range reply.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			if v != nil {
				cells[i] = fmt.Sprint(v)
			}
		}
		t.row(cells...)
	}
	if reply.Truncated {
		return t.String() + "(there is more)\n"
	}
	return t.String()
}

func (s *session) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Category: groupRecords, Usage: "whether a record was changed", UsageText: "verify [--json] VM|SESSION...", Flags: []cli.Flag{jsonFlag()},
		Description: "Checks that no row of a record was changed, removed, added or moved since it was written: each is chained to the one before,\n" +
			"and the chain is signed.",
		Action: action(s.verify),
	}
}

func (s *session) verify(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, -1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	bad := 0
	for _, id := range args {
		report, err := svc.Verify(ctx, id)
		switch {
		case err != nil:
			return err //nolint:wrapcheck // a fault
		case c.Bool("json"):
			err = s.printJSON(report)
		case report.OK():
			err = s.print(fmt.Sprintf("%s is as it was written: %d rows, %d of them signed, %d lost\n", clean(report.Session), report.Rows, report.Signed, report.Lost))
		default:
			var b strings.Builder
			for _, p := range report.Problems {
				b.WriteString(clean(p.String()) + "\n")
			}
			err = s.print(b.String())
		}
		if err != nil {
			return err
		}
		bad += report.ProblemCount
	}
	if bad > 0 {
		return fault.New(fault.Conflict, "what is recorded was changed since it was written: %d problems", bad)
	}
	return nil
}

func (s *session) statsCommand() *cli.Command {
	return &cli.Command{
		Name: "stats", Category: groupRecords, Usage: "sums", UsageText: "stats [--json] [VM|SESSION]", Flags: []cli.Flag{jsonFlag()},
		Description: "Sums up what a VM did, or, without one, all VMs of which there is a record.",
		Action:      action(s.stats),
	}
}

func (s *session) stats(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 0, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	var reply any
	var t api.RecordTotals
	head := ""
	if len(args) == 1 {
		t, err = svc.SessionStats(ctx, args[0])
		reply = t
	} else {
		var all api.StatsReply
		all, err = svc.Stats(ctx)
		reply, t, head = all, all.Global, fmt.Sprintf("sessions\t%d\n", all.Count)
	}
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, head)
	fmt.Fprintf(w, "commands\t%d\nfile changes\t%d\nsnapshots\t%d\n", t.Execs, t.FileEvents, t.Snapshots)
	fmt.Fprintf(w, "requests\t%d\t(%d allowed, %d denied, %d failed)\n", t.Requests, t.Allowed, t.Denied, t.Errors)
	fmt.Fprintf(w, "bytes sent\t%s\nbytes received\t%s\n", byteSize(t.BytesSent), byteSize(t.BytesReceived))
	fmt.Fprintf(w, "name lookups\t%d\t(%d denied)\nquestions to you\t%d\n", t.DNSQueries, t.DNSDenied, t.Approvals)
	fmt.Fprintf(w, "model calls\t%d\t(%d tokens in, %d out, %s)\n", t.ModelCalls, t.InputTokens, t.OutputTokens, costText(t.CostUSD, t.CostUnknown))
	fmt.Fprintf(w, "tool calls\t%d\n", t.ToolCalls+t.MCPCalls)
	if t.Lost > 0 {
		fmt.Fprintf(w, "not recorded\t%d\n", t.Lost)
	}
	_ = w.Flush() // a strings.Builder takes everything
	for _, m := range t.Models {
		fmt.Fprintf(&b, "  %6d  %s %s (%d tokens in, %d out, %s)\n", m.Calls, clean(m.Provider), clean(m.Model), m.InputTokens, m.OutputTokens, costText(m.CostUSD, m.CostUnknown))
	}
	for _, d := range t.Domains {
		fmt.Fprintf(&b, "  %6d  %s (%d denied)\n", d.Requests, clean(d.Domain), d.Denied)
	}
	return s.print(b.String())
}
