package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// maxTimeout bounds the time limit of a command.
const maxTimeout = proto.MaxTimeout

// execRequest is what the worker is asked.
func execRequest(req api.ExecRequest) (proto.WorkerRequest, error) {
	out := proto.WorkerRequest{Op: proto.OpExec, Detach: req.Detach, Exec: &proto.ExecRequest{
		Command: req.Command, Argv: req.Argv, Dir: req.Dir, Env: req.Env, Stdin: req.Stdin || req.StdinText != "", PTY: req.PTY,
	}}
	if !(req.TimeoutSecs >= 0 && req.TimeoutSecs <= maxTimeout.Seconds()) { // NaN too
		return out, fault.New(fault.Invalid, "a time limit of %v seconds is no time limit", req.TimeoutSecs).WithHint("leave it out for none")
	}
	out.Exec.TimeoutMS = int64(req.TimeoutSecs * 1000)
	if req.TimeoutSecs > 0 {
		out.Exec.TimeoutMS = max(out.Exec.TimeoutMS, 1)
	}
	if err := out.Exec.Validate(); err != nil {
		return out, fault.New(fault.Invalid, "%s", err)
	}
	return out, nil
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	var req api.ExecRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.execBuffered(r.Context(), r.PathValue("id"), req)
	return answer(w, reply, err)
}

// checkBuffered refuses what only the stream route can do.
func checkBuffered(req api.ExecRequest) error {
	if req.PTY != nil || req.Stdin {
		return fault.New(fault.Invalid, "a terminal or input that is still to come needs a stream").
			WithHint("use /exec/{id}/stream, or stdin_text for input that is known")
	}
	return nil
}

// execBuffered runs a command and collects what it writes.
func (s *Server) execBuffered(ctx context.Context, id string, req api.ExecRequest) (api.ExecReply, error) {
	var none api.ExecReply
	if err := checkBuffered(req); err != nil {
		return none, err
	}
	ask, err := execRequest(req)
	if err != nil {
		return none, err
	}
	conn, err := s.svc.Stream(ctx, id, ask)
	if err != nil {
		return none, err //nolint:wrapcheck // a fault
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the client left: the command ends
	defer stop()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		feed(conn, req.StdinText)
	}()
	reply, err := collect(conn, req.Detach)
	_ = conn.Close() // wakes feed, where the command did not read all
	<-fed
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return reply, err
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
	_ = proto.WriteStreamFrame(conn, proto.KindStdin, nil)
}

// collect reads the stream of a command until it ends, or with detach until it has started.
func collect(conn io.Reader, detach bool) (api.ExecReply, error) {
	var reply api.ExecReply
	var stdout, stderr bytes.Buffer
	frames := proto.NewStreamReader(conn)
	for {
		kind, data, err := frames.Next()
		if err != nil {
			return reply, lost(err)
		}
		switch kind {
		case proto.KindStarted:
			var started proto.Started
			if err := json.Unmarshal(data, &started); err != nil {
				return reply, fmt.Errorf("decode start of command: %w", err)
			}
			reply.Job = started.Job
			if detach {
				return reply, nil
			}
		case proto.KindStdout:
			reply.Truncated = keep(&stdout, data) || reply.Truncated
		case proto.KindStderr:
			reply.Truncated = keep(&stderr, data) || reply.Truncated
		case proto.KindExit:
			var exit proto.ExitStatus
			if err := json.Unmarshal(data, &exit); err != nil {
				return reply, fmt.Errorf("decode end of command: %w", err)
			}
			reply.Stdout, reply.Stderr = stdout.String(), stderr.String()
			reply.ExitCode, reply.Signal, reply.Error, reply.DurationUS = exit.Code, exit.Signal, exit.Error, exit.DurationUS
			return reply, nil
		case proto.KindError:
			return reply, streamFault(data)
		default:
			return reply, fault.New(fault.Internal, "the VM's worker sent a frame of kind %d", kind)
		}
	}
}

// keep adds to a buffer what fits, and reports whether something did not.
func keep(b *bytes.Buffer, data []byte) (cut bool) {
	n := min(len(data), api.MaxBufferedOutput-b.Len())
	b.Write(data[:n])
	return n < len(data)
}

// lost is the error of a stream that broke off.
func lost(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fault.Wrap(err, fault.Unavailable, "the VM went away while this was going on").WithHint("see capsem list and capsem logs")
}

// streamFault is the error that a stream ends with.
func streamFault(data []byte) error {
	var se proto.StreamError
	if err := json.Unmarshal(data, &se); err != nil {
		return fmt.Errorf("decode error of stream: %w", err)
	}
	if strings.TrimSpace(se.Message) == "" {
		se.Message = "the VM could not do it and does not say why"
	}
	return workerclient.Fault(&se)
}

// runOnce makes a VM, runs a command in it and destroys it, whatever happens in between.
func (s *Server) runOnce(w http.ResponseWriter, r *http.Request) error {
	var req api.RunRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	if req.Detach {
		return fault.New(fault.Invalid, "run destroys its VM: nothing can go on in it").WithHint("use /provision and /exec/{id}")
	}
	if err := checkBuffered(req.ExecRequest); err != nil {
		return err
	}
	if _, err := execRequest(req.ExecRequest); err != nil { // before a VM is made for it
		return err
	}
	vm, err := s.svc.Provision(r.Context(), api.ProvisionRequest{RAMMB: req.RAMMB, CPUs: req.CPUs, DiskMB: req.DiskMB, Secrets: req.Secrets})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	reply, err := s.execBuffered(r.Context(), vm.ID, req.ExecRequest)
	gone := s.svc.Delete(context.WithoutCancel(r.Context()), vm.ID)
	if fault.Is(gone, fault.NotFound) {
		gone = nil // it has powered itself off
	}
	return answer(w, reply, errors.Join(err, gone))
}
