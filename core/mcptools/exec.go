package mcptools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

const (
	// defaultShown and maxShown bound what of a stream is in an answer, in bytes.
	defaultShown = 32 << 10
	maxShown     = 400 << 10
	// clearTime bounds the end of a VM whose command is over or no longer wanted.
	clearTime = 30 * time.Second
)

// limits are what a command may take.
type limits struct {
	Stdin     string `json:"stdin,omitempty" jsonschema:"its input"`
	Dir       string `json:"dir,omitempty" jsonschema:"its working directory; /root otherwise"`
	MaxOutput int    `json:"max_output,omitempty" jsonschema:"how many bytes of each stream to answer with; the rest is kept for capsem_read_output"`
}

type execParams struct {
	ID      string            `json:"id" jsonschema:"the VM's name or id; one that is suspended because it was idle wakes"`
	Command string            `json:"command" jsonschema:"a shell line, run by bash as root"`
	Timeout float64           `json:"timeout,omitempty" jsonschema:"seconds after which it is killed; 0 for no limit"`
	Env     map[string]string `json:"env,omitempty" jsonschema:"further environment variables"`
	Detach  bool              `json:"detach,omitempty" jsonschema:"answer at once with a job, which capsem_job looks after"`
	limits
}

type runParams struct {
	Command  string            `json:"command" jsonschema:"a shell line, run by bash as root"`
	Timeout  float64           `json:"timeout,omitempty" jsonschema:"seconds after which it is killed, the VM's start not counted; 0 for no limit"`
	Env      map[string]string `json:"env,omitempty" jsonschema:"environment variables"`
	RAMMB    int               `json:"ramMb,omitempty" jsonschema:"memory in MB; the settings say otherwise"`
	CPUCount int               `json:"cpuCount,omitempty" jsonschema:"number of CPUs; the settings say otherwise"`
	From     string            `json:"from,omitempty" jsonschema:"the image to make the VM of"`
	limits
}

// result is how a command went.
type result struct {
	ExitCode    int     `json:"exit_code"`
	Signal      string  `json:"signal,omitempty" jsonschema:"the signal that ended it"`
	TimedOut    bool    `json:"timed_out,omitempty"`
	Error       string  `json:"error,omitempty" jsonschema:"why it could not be run"`
	Stdout      string  `json:"stdout"`
	Stderr      string  `json:"stderr"`
	StdoutBytes int64   `json:"stdout_bytes"`
	StderrBytes int64   `json:"stderr_bytes"`
	Truncated   bool    `json:"truncated,omitempty" jsonschema:"there is more output than is shown; read it with capsem_read_output"`
	Output      string  `json:"output,omitempty" jsonschema:"the id for capsem_read_output"`
	DurationMS  float64 `json:"duration_ms" jsonschema:"measured in the guest"`
	Job         string  `json:"job,omitempty"`
}

func (s *Server) addExec() {
	add(s, tool{
		name: "capsem_exec", title: "Run a command in a VM", does: changes, open: true, defaults: map[string]any{"timeout": 30, "max_output": defaultShown},
		about: "Runs a shell line in a VM and answers with its output and exit code. Cancelling the call ends the command.",
	}, s.exec)
	add(s, tool{
		name: "capsem_run", title: "Run a command in a new VM", does: changes, open: true, defaults: map[string]any{"timeout": 60, "max_output": defaultShown},
		about: "Makes a VM, runs a shell line in it, and destroys the VM. Nothing of it stays but the record.",
	}, s.run)
	add(s, tool{
		name: "capsem_read_output", title: "Read more of an output", does: reads, defaults: map[string]any{"stream": "stdout", "limit": defaultPart},
		about: "Reads a part of an output that was too long for the answer of its command.",
	}, s.readOutput)
}

func (s *Server) exec(ctx context.Context, c *call, in execParams) (result, error) {
	req := api.ExecRequest{Command: in.Command, Dir: in.Dir, Env: in.Env, TimeoutSecs: in.Timeout}
	if !in.Detach {
		return c.command(ctx, in.ID, req, in.limits)
	}
	req.Detach = true
	if in.Stdin != "" {
		return result{}, fault.New(fault.Invalid, "a detached command has no stdin").WithHint("write the input to a file first")
	}
	reply, err := c.svc.Exec(ctx, in.ID, req)
	return result{Job: reply.Job}, err
}

func (s *Server) run(ctx context.Context, c *call, in runParams) (out result, err error) {
	if in.Command == "" {
		return result{}, fault.New(fault.Invalid, "the command is empty")
	}
	id, err := c.provision(ctx, createParams{RAMMB: in.RAMMB, CPUCount: in.CPUCount, Env: in.Env, From: in.From})
	if err != nil {
		return result{}, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTime)
		defer cancel()
		if gone := c.svc.Delete(ctx, id); gone != nil && !fault.Is(gone, fault.NotFound) { // it may have powered itself off
			err = errors.Join(err, gone)
		}
	}()
	return c.command(ctx, id, api.ExecRequest{Command: in.Command, Dir: in.Dir, TimeoutSecs: in.Timeout}, in.limits)
}

// command runs a command to its end.
func (c *call) command(ctx context.Context, id string, req api.ExecRequest, lim limits) (result, error) {
	if lim.MaxOutput < 0 || lim.MaxOutput > maxShown {
		return result{}, fault.New(fault.OutOfRange, "max_output is %d; it must be from 0 to %d", lim.MaxOutput, maxShown)
	}
	req.Stdin = lim.Stdin != ""
	conn, err := c.svc.ExecStream(ctx, id, req)
	if err != nil {
		return result{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the client does not want it any more: the command ends
	defer stop()
	var feeding sync.WaitGroup
	feeding.Go(func() { feed(conn, lim.Stdin) })
	out := map[string]*spool{"stdout": {}, "stderr": {}}
	exit, job, err := c.follow(ctx, conn, out)
	_ = conn.Close() // wakes feed, where the command did not read all
	feeding.Wait()
	if err != nil {
		closeAll(&kept{stream: out})
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return result{}, err
	}
	return c.s.show(c, exit, job, out, lim.MaxOutput)
}

// feed sends the input of a command. A command that does not want it all is no error.
func feed(conn net.Conn, text string) {
	if text == "" {
		return
	}
	for len(text) > 0 {
		n := min(len(text), proto.MaxChunk)
		if proto.WriteStreamFrame(conn, proto.KindStdin, []byte(text[:n])) != nil {
			return
		}
		text = text[n:]
	}
	_ = proto.WriteStreamFrame(conn, proto.KindStdin, nil) // as above
}

// follow reads a command's stream to its end.
func (c *call) follow(ctx context.Context, conn io.Reader, out map[string]*spool) (exit proto.ExitStatus, job string, err error) {
	frames := proto.NewStreamReader(conn)
	for {
		kind, data, err := frames.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return exit, job, fault.Wrap(err, fault.Unavailable, "the VM or the service went away while the command ran").
				WithHint("see capsem_list; the command has ended")
		}
		switch kind {
		case proto.KindStarted:
			var started proto.Started
			if err := json.Unmarshal(data, &started); err != nil {
				return exit, job, fmt.Errorf("decode start of command: %w", err)
			}
			job = started.Job
			c.progress(ctx, "the command runs")
		case proto.KindStdout, proto.KindStderr:
			name := "stdout"
			if kind == proto.KindStderr {
				name = "stderr"
			}
			_, _ = out[name].Write(data) // never fails
			c.progress(ctx, lastLine(data))
		case proto.KindExit:
			if err := json.Unmarshal(data, &exit); err != nil {
				return exit, job, fmt.Errorf("decode end of command: %w", err)
			}
			return exit, job, nil
		case proto.KindError:
			var se proto.StreamError
			if err := json.Unmarshal(data, &se); err != nil {
				return exit, job, fmt.Errorf("decode error of stream: %w", err)
			}
			return exit, job, workerclient.Fault(&se)
		default:
			return exit, job, fault.New(fault.Internal, "the service sent a frame of kind %d", kind)
		}
	}
}

// lastLine is the end of an output in a few words.
func lastLine(data []byte) string {
	const most = 200
	data = data[max(0, len(data)-4*most):]
	data = bytes.TrimRight(data, "\r\n")
	data = data[bytes.LastIndexAny(data, "\r\n")+1:]
	text := []rune(plainUTF8(data))
	return string(text[max(0, len(text)-most):])
}

// show makes the answer of a command, and keeps the output that does not fit in it.
func (s *Server) show(c *call, exit proto.ExitStatus, job string, out map[string]*spool, limit int) (result, error) {
	r := result{
		ExitCode: exit.Code, Signal: exit.Signal, TimedOut: exit.TimedOut, Error: exit.Error, DurationMS: float64(exit.DurationUS) / 1000, Job: job,
	}
	keptOut, total := out["stdout"].sizes()
	r.StdoutBytes = total
	keptErr, totalErr := out["stderr"].sizes()
	r.StderrBytes = totalErr
	r.Truncated = total > int64(limit) || totalErr > int64(limit) || keptOut < total || keptErr < totalErr
	pointer := func(string) string { return "" }
	if r.Truncated {
		r.Output = s.outputs.keep(out)
		pointer = func(stream string) string {
			return fmt.Sprintf("capsem_read_output output=%s stream=%s", r.Output, stream)
		}
	}
	for name, text := range map[string]*string{"stdout": &r.Stdout, "stderr": &r.Stderr} {
		var cut bool
		var err error
		if *text, cut, err = out[name].preview(limit, pointer(name)); err != nil {
			return result{}, err
		}
		if cut {
			c.link("capsem://output/"+r.Output+"/"+name, name+" of the command", "all of what was kept of it")
		}
	}
	return r, nil
}
