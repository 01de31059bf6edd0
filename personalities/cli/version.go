package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/fault"
)

// versionPatience bounds the question to a service that may hang: version is asked for when something is wrong.
const versionPatience = time.Second

func (s *session) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Category: groupService, Usage: "of capsem and its service", UsageText: "version [--json]", Flags: []cli.Flag{jsonFlag()},
		Description: "Shows the version of this program and of the service, if one runs. It never starts one.",
		Action:      action(s.version),
	}
}

// versions is the JSON of version.
type versions struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	BuildTime string `json:"build_time"`
	// Service is of the running service; absent when none runs.
	Service *api.VersionReply `json:"service,omitempty"`
}

func (s *session) version(ctx context.Context, c *cli.Context) error {
	v := versions{Version: buildinfo.Version, Commit: buildinfo.Commit, BuildTime: buildinfo.BuildTime}
	if svc, err := s.client(); err == nil {
		ctx, cancel := context.WithTimeout(ctx, versionPatience)
		defer cancel()
		// No service, or one that does not answer, is no failure of this command.
		if reply, err := svc.Version(ctx); err == nil {
			v.Service = &reply
		}
	}
	if c.Bool("json") {
		return s.printJSON(v)
	}
	text := fmt.Sprintf("capsem %s (commit %s, built %s)\n", v.Version, v.Commit, v.BuildTime)
	switch {
	case v.Service == nil:
		text += "service: not running\n"
	case v.Service.Version != v.Version || v.Service.Commit != v.Commit:
		text += fmt.Sprintf("service: %s (commit %s, built %s), pid %d; another build: restart it with capsem service stop\n",
			clean(v.Service.Version), clean(v.Service.Commit), clean(v.Service.BuildTime), v.Service.PID)
	default:
		text += fmt.Sprintf("service: same build, pid %d\n", v.Service.PID)
	}
	return s.print(text)
}

func (s *session) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Category: groupService, Usage: "of the service", UsageText: "status [--json]", Flags: []cli.Flag{jsonFlag()},
		Description: "Shows whether the service runs, how many VMs it has, the accelerator and the image. It never starts the service;\n" +
			"the exit code is 1 when it does not run.",
		Action: action(s.status),
	}
}

func (s *session) status(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.client()
	if err != nil {
		return err
	}
	st, err := svc.Status(ctx)
	if err != nil {
		if svcDown(err) {
			return fault.New(fault.Unavailable, "the service does not run").WithHint("any command that needs it starts it, or capsem service start")
		}
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(st)
	}
	image := "none; make one with capsem assets build"
	if st.Assets.Ready {
		image = st.Assets.Version
	}
	return s.print(fields([]field{
		{"service", fmt.Sprintf("%s, pid %d, up %s", st.Version, st.PID, uptime(st.UptimeSecs))},
		{"home", st.Home},
		{"VMs", vmCounts(st)},
		{"accelerator", clean(st.Accelerator)},
		{"image", image},
	}))
}

func vmCounts(st api.ServiceStatus) string {
	text := fmt.Sprintf("%d running (at most %d), %d stopped", st.Running, st.MaxVMs, st.Stopped)
	if st.Pooled > 0 {
		text += fmt.Sprintf(", %d ready in the pool", st.Pooled)
	}
	return text
}
