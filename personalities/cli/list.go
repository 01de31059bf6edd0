package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
)

func (s *session) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Aliases: []string{"ls"}, Category: groupSessions, Usage: "all VMs", UsageText: "list [-q] [--json]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "ids only"}, jsonFlag(),
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "changes nothing: all VMs are shown anyway"},
		},
		Description: "Shows every VM: running ones, and named ones that are stopped. Under a VM that died stands its last word. What a VM\n" +
			"takes on disk is in capsem info, since finding it out takes time.",
		Action: action(s.list),
	}
}

func (s *session) list(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.List(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	switch {
	case c.Bool("json"):
		return s.printJSON(listed(reply))
	case c.Bool("quiet"):
		var ids strings.Builder
		for _, vm := range reply.Sandboxes {
			ids.WriteString(vm.ID + "\n")
		}
		return s.print(ids.String())
	}
	return s.print(vmTable(reply.Sandboxes))
}

// listJSON is api.ListReply with VMs that say what they take on disk only where the service says it.
type listJSON struct {
	Sandboxes   []listedVM      `json:"sandboxes"`
	AssetHealth api.AssetHealth `json:"asset_health"`
}

type listedVM struct {
	api.SandboxInfo
	// SizeBytes hides the one of SandboxInfo, which is 0 when it was not looked for.
	SizeBytes int64 `json:"size_bytes,omitempty"`
}

func listed(reply api.ListReply) listJSON {
	out := listJSON{Sandboxes: make([]listedVM, 0, len(reply.Sandboxes)), AssetHealth: reply.AssetHealth}
	for _, vm := range reply.Sandboxes {
		out.Sandboxes = append(out.Sandboxes, listedVM{vm, vm.SizeBytes})
	}
	return out
}

// vmTable is the table of list. A Defunct VM is followed by why, and what to do.
func vmTable(vms []api.SandboxInfo) string {
	t := newTable("ID", "NAME", "STATUS", "RAM", "CPUs", "UPTIME")
	for _, vm := range vms {
		name := vm.Name
		if name == "" {
			name = "-"
		}
		up := "-"
		if lifecycle.Live(vm.Status) {
			up = uptime(vm.UptimeSecs)
		}
		t.row(vm.ID, name, string(vm.Status), gigabytes(vm.RAMMB), strconv.Itoa(vm.CPUs), up)
	}
	lines := strings.SplitAfter(t.String(), "\n")
	var out strings.Builder
	for i, line := range lines {
		out.WriteString(line)
		if i > 0 && i <= len(vms) {
			out.WriteString(below(vms[i-1]))
		}
	}
	return out.String()
}

// below is what a VM's line in the table does not say: what it waits for, or why it died and what to do about it.
func below(vm api.SandboxInfo) string {
	switch {
	case vm.Status == lifecycle.Running && vm.Step != "":
		return "  " + clean(vm.Step) + "\n"
	case vm.Status == lifecycle.Suspended && vm.Idle:
		return "  nobody used it; its next command, shell or file operation wakes it\n"
	case vm.Status != lifecycle.Defunct:
		return ""
	}
	text := ""
	if why, more, _ := strings.Cut(strings.TrimSpace(vm.LastError), "\n"); why != "" {
		text = "  " + lastLine(why) + "\n"
		if last := lastLine(more); last != "" {
			text += "  last log line: " + last + "\n"
		}
	}
	if vm.Persistent {
		return text + fmt.Sprintf("  capsem resume %s starts it again; capsem logs %s tells more\n", vm.ID, vm.ID)
	}
	return text + fmt.Sprintf("  capsem logs %s tells more; capsem delete %s removes it\n", vm.ID, vm.ID)
}

// lastLine is the last line of a guest's text that says something, cut to fit a screen.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := []rune(clean(lines[len(lines)-1]))
	if len(line) > 120 {
		line = append(line[:119], '…')
	}
	return string(line)
}

// clean makes one line of a guest's text safe for a terminal.
func clean(text string) string { return fault.Plain(text) }

// printJSON prints a value as indented JSON.
func (s *session) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return s.print(string(text) + "\n")
}
