package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func (s *session) infoCommand() *cli.Command {
	return &cli.Command{
		Name: "info", Category: groupSessions, Usage: "everything about a VM", UsageText: "info VM [--json]", Flags: []cli.Flag{jsonFlag()},
		Description: "Shows one VM: state, size, accelerator, how it booted, and where its files are.",
		Action:      action(s.info),
	}
}

func (s *session) info(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	info, err := svc.Info(ctx, args[0])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(info)
	}
	return s.print(describe(info))
}

// field is one line of a description; an empty value is left out.
type field struct{ name, value string }

func fields(all []field) string {
	var b strings.Builder
	for _, f := range all {
		if f.value != "" {
			fmt.Fprintf(&b, "%-13s %s\n", f.name, f.value)
		}
	}
	return b.String()
}

// onDisk is empty when the service did not say: every VM takes something.
func onDisk(size int64) string {
	if size == 0 {
		return ""
	}
	return byteSize(size)
}

func describe(vm api.SandboxInfo) string {
	kept := "temporary: destroyed when it stops"
	if vm.Persistent {
		kept = "kept until deleted"
	}
	all := []field{
		{"id", vm.ID},
		{"name", vm.Name},
		{"status", string(vm.Status)},
		{"step", clean(vm.Step)},
		{"", ""},
		{"kind", kept},
		{"size", fmt.Sprintf("%s RAM, %d CPUs, %s disk", gigabytes(vm.RAMMB), vm.CPUs, gigabytes(vm.DiskMB))},
		{"on disk", onDisk(vm.SizeBytes)},
		{"shares", mountsText(vm.Mounts)},
		{"secrets", secretsText(vm.Secrets)},
		{"image", vm.Image},
		{"guest image", vm.Version},
		{"created", vm.CreatedAt},
	}
	if lifecycle.Live(vm.Status) {
		all = append(all, field{"uptime", uptime(vm.UptimeSecs)}, field{"accelerator", vm.Accelerator}, field{"link", vm.Carrier},
			field{"processes", fmt.Sprintf("worker %d, hypervisor %d", vm.PID, vm.HypervisorPID)})
	}
	if vm.BootMS > 0 {
		how := ""
		if vm.Warm {
			how = ", from a template"
		}
		all = append(all, field{"boot", fmt.Sprintf("%.2f s%s", float64(vm.BootMS)/1000, how)})
	}
	for _, stage := range vm.BootStages {
		all = append(all, field{"", fmt.Sprintf("%8.1f ms  %s", float64(stage.DurationUS)/1000, clean(stage.Name))})
	}
	for _, note := range vm.Notes {
		all = append(all, field{"note", clean(note)})
	}
	all = append(all, field{"directory", vm.Dir})
	for line := range strings.Lines(vm.LastError) {
		all = append(all, field{"last error", clean(line)})
	}
	return fields(all)
}

// secretsText says which secrets a VM has; nothing when it has all.
func secretsText(names []string) string {
	if names == nil {
		return ""
	}
	if len(names) == 0 {
		return "none"
	}
	return "only " + clean(strings.Join(names, ", "))
}

func mountsText(all []proto.Mount) string {
	var out []string
	for _, m := range all {
		text := clean(m.Host) + " at " + clean(m.Guest)
		if m.ReadOnly {
			text += " (read-only)"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
