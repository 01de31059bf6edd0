package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
	"capsem/core/proto"
)

func (s *session) jobsCommand() *cli.Command {
	return &cli.Command{
		Name: "jobs", Category: groupSessions, Usage: "what runs and ran in a VM", UsageText: "jobs VM [JOB [--wait|--cancel]] [--json]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "wait until JOB has ended, and exit with its code"},
			&cli.BoolFlag{Name: "cancel", Usage: "end JOB"}, jsonFlag(),
		},
		Description: "Lists the commands and file operations of a VM, newest first; or shows one, with the end of its output.\n\n" +
			"With --wait, the exit code is the job's: 124 when its --timeout ended it, 125 when capsem itself failed or the job's\n" +
			"end is not known. With --cancel --wait it is 0 when the job has ended.",
		Action: action(s.jobs),
	}
}

func (s *session) jobs(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 2)
	if err != nil {
		return err
	}
	if len(args) == 1 && (c.Bool("wait") || c.Bool("cancel")) {
		return fault.New(fault.Invalid, "name the job").WithHint("capsem jobs %s lists them", args[0])
	}
	if c.Bool("wait") && !c.Bool("cancel") {
		return s.awaitJob(ctx, c, args[0], args[1])
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		reply, err := svc.Jobs(ctx, args[0])
		if err != nil {
			return err //nolint:wrapcheck // a fault
		}
		if c.Bool("json") {
			return s.printJSON(reply)
		}
		return s.print(jobTable(reply.Jobs, time.Now()))
	}
	if c.Bool("cancel") {
		if err := svc.CancelJob(ctx, args[0], args[1]); err != nil || !c.Bool("wait") {
			return err //nolint:wrapcheck // a fault
		}
	}
	job, err := svc.Job(ctx, args[0], args[1], c.Bool("wait"))
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.printJob(c, job)
}

func (s *session) printJob(c *cli.Context, job proto.Job) error {
	if c.Bool("json") {
		return s.printJSON(job)
	}
	return s.showJob(job)
}

// awaitJob shows a job when it has ended. The result is the job's, so a failure of capsem's gets a code of its own.
func (s *session) awaitJob(ctx context.Context, c *cli.Context, vm, id string) error {
	ours := func(err error) error { return &fault.Exit{Status: fault.ExitCapsem, Err: err} }
	svc, err := s.service(ctx)
	if err != nil {
		return ours(err)
	}
	done := s.step("waiting for job " + id)
	job, err := svc.Job(ctx, vm, id, true)
	done()
	if err != nil {
		return ours(err)
	}
	if err := s.printJob(c, job); err != nil {
		return ours(err)
	}
	switch {
	case job.Exit != nil:
		return commandResult(*job.Exit)
	case job.State != proto.JobDone:
		return ours(fault.New(fault.Unavailable, "how job %s ended is not known: %s", id, cmp.Or(clean(job.Error), string(job.State))))
	case job.Error != "":
		return ours(fault.New(fault.Internal, "job %s failed: %s", id, clean(job.Error)))
	}
	return nil
}

func jobTable(jobs []proto.Job, now time.Time) string {
	t := newTable("JOB", "STATE", "EXIT", "TIME", "COMMAND")
	for _, j := range jobs {
		t.row(j.ID, string(j.State), exitText(j), jobTime(j, now), whatText(j))
	}
	return t.String()
}

func exitText(j proto.Job) string {
	if j.Exit == nil {
		return "-"
	}
	return strconv.Itoa(j.Exit.Code)
}

func whatText(j proto.Job) string {
	what := []rune(clean(j.What))
	if len(what) > 60 {
		what = append(what[:59], '…')
	}
	if j.Kind != "exec" {
		return clean(j.Kind) + " " + string(what)
	}
	return string(what)
}

// jobTime is how long a job took, or has taken so far.
func jobTime(j proto.Job, now time.Time) string {
	end := now
	if j.EndedNS > 0 {
		end = time.Unix(0, j.EndedNS)
	}
	d := end.Sub(time.Unix(0, j.StartedNS))
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

// showJob prints one job and the end of its output, as it was written.
func (s *session) showJob(j proto.Job) error {
	all := []field{
		{"job", clean(j.ID)},
		{"command", clean(j.What)},
		{"state", clean(string(j.State))},
		{"started", time.Unix(0, j.StartedNS).Format(time.RFC3339)},
		{"time", jobTime(j, time.Now())},
		{"error", clean(j.Error)},
	}
	if j.Exit != nil {
		all = append(all, field{"exit code", exitText(j)}, field{"signal", clean(j.Exit.Signal)})
	}
	if err := s.print(fields(all)); err != nil {
		return err
	}
	for _, part := range []struct {
		name  string
		tail  []byte
		total int64
	}{{"stdout", j.Stdout, j.StdoutBytes}, {"stderr", j.Stderr, j.StderrBytes}} {
		if part.total == 0 {
			continue
		}
		head := fmt.Sprintf("--- %s (%d bytes", part.name, part.total)
		if part.total > int64(len(part.tail)) {
			head += fmt.Sprintf(", the last %d", len(part.tail))
		}
		if err := s.print(head + ")\n"); err != nil {
			return err
		}
		if _, err := s.guestText().Write(part.tail); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	return nil
}
