package mcptools

import (
	"context"

	"capsem/core/proto"
)

type jobParams struct {
	ID   string `json:"id" jsonschema:"the VM's name or id"`
	Job  string `json:"job" jsonschema:"the job, as capsem_exec named it"`
	Wait bool   `json:"wait,omitempty" jsonschema:"answer when it has ended"`
}

type jobName struct {
	ID  string `json:"id" jsonschema:"the VM's name or id"`
	Job string `json:"job" jsonschema:"the job"`
}

// job is a command that was started in a VM.
type job struct {
	ID       string            `json:"id"`
	Kind     string            `json:"kind"`
	What     string            `json:"what" jsonschema:"the command, cut"`
	State    proto.JobState    `json:"state" jsonschema:"running, done or lost"`
	Detached bool              `json:"detached,omitempty"`
	Exit     *proto.ExitStatus `json:"exit,omitempty"`
	Error    string            `json:"error,omitempty"`
	// Stdout and Stderr are the ends of a detached job's output.
	Stdout      string `json:"stdout,omitempty" jsonschema:"the end of a detached job's output"`
	Stderr      string `json:"stderr,omitempty"`
	StdoutBytes int64  `json:"stdout_bytes"`
	StderrBytes int64  `json:"stderr_bytes"`
}

// jobs are those of a VM, newest first.
type jobs struct {
	Jobs []job `json:"jobs"`
}

func view(j proto.Job) job {
	return job{
		ID: j.ID, Kind: j.Kind, What: j.What, State: j.State, Detached: j.Detached, Exit: j.Exit, Error: j.Error,
		Stdout: plainUTF8(j.Stdout), Stderr: plainUTF8(j.Stderr), StdoutBytes: j.StdoutBytes, StderrBytes: j.StderrBytes,
	}
}

func (s *Server) addJobs() {
	add(s, tool{name: "capsem_job_list", title: "List jobs", does: reads, about: "Lists the commands of a VM that run and that ran, newest first."},
		func(ctx context.Context, c *call, in vmName) (jobs, error) {
			reply, err := c.svc.Jobs(ctx, in.ID)
			out := jobs{Jobs: []job{}}
			for _, j := range reply.Jobs {
				out.Jobs = append(out.Jobs, view(j))
			}
			return out, err
		})
	add(s, tool{name: "capsem_job", title: "Look after a job", does: reads, about: "Says how a job is, with the end of its output; with wait when it has ended."},
		func(ctx context.Context, c *call, in jobParams) (job, error) {
			j, err := meanwhile(ctx, c, "waiting for "+in.Job, nil, func() (proto.Job, error) { return c.svc.Job(ctx, in.ID, in.Job, in.Wait) })
			return view(j), err
		})
	add(s, tool{name: "capsem_job_cancel", title: "Cancel a job", does: destroys, about: "Ends the processes of a job."},
		func(ctx context.Context, c *call, in jobName) (done, error) {
			return done{true}, c.svc.CancelJob(ctx, in.ID, in.Job)
		})
}
