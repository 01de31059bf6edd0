package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"capsem/core/fault"
	"capsem/core/link"
	"capsem/core/machine/jobs"
	"capsem/core/proto"
)

// exec runs a command. Attached, its stream is the client's connection and ends with it; detached, the client gets Started and
// the command goes on.
func (w *Worker) exec(ctx context.Context, c *client, req *proto.ExecRequest, detach bool) error {
	a, err := w.guest()
	if err != nil {
		return refuse(c, err)
	}
	cancelled := make(chan struct{})
	job, err := w.jobs.Begin("exec", describe(req), detach, func() { close(cancelled) })
	if err != nil {
		return refuse(c, err)
	}
	req.ID = job.ID()
	// A detached command does not end with its client; the end of the link ends its stream.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	st, err := a.Exec(ctx, req)
	if err != nil {
		stop()
		job.Lost(err.Error())
		return refuse(c, lost(err))
	}
	go func() {
		select {
		case <-cancelled:
			_ = st.Close() // ends the command's process group
		case <-life.Done():
		}
	}()
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		_ = st.Close()
		stop()
		job.Lost("its client left")
		return err //nolint:wrapcheck // the client left
	}
	r := &run{job: job, out: c, stream: st, detach: detach, answered: make(chan struct{})}
	if detach {
		w.work.Go(func() {
			defer stop()
			r.follow()
		})
		<-r.answered
		return nil
	}
	defer stop()
	go r.input(c)
	r.follow()
	return nil
}

func describe(req *proto.ExecRequest) string {
	text := req.Command
	if text == "" {
		text = strings.Join(req.Argv, " ")
	}
	return plain(text)
}

// lost is the error of a stream that ended before its result.
func lost(err error) *fault.Error {
	if errors.Is(err, proto.ErrBadStreamFrame) || errors.Is(err, errRules) {
		return fault.Wrap(err, fault.Internal, "the guest broke the rules of its stream: %s", err)
	}
	return fault.Wrap(err, fault.Unavailable, "the link to the guest broke while this was going on").WithHint("see capsem list and capsem logs")
}

// errRules is a frame that the guest may not send, or not then.
var errRules = errors.New("unexpected frame")

// run is one command with its client.
type run struct {
	job    *jobs.Job
	stream link.Stream
	// out is the client; nobody, once the client of a detached command knows that it runs.
	out    io.Writer
	detach bool
	// answered is closed when nothing more is to be sent to the client.
	answered chan struct{}
}

// input passes on what the client sends, until it leaves, which ends the command.
func (r *run) input(c *client) {
	f := newFrame()
	defer f.free()
	for {
		if f.read(c) != nil {
			_ = r.stream.Close() // the command ends with its client
			return
		}
		switch f.kind() {
		case proto.KindStdin, proto.KindResize, proto.KindSignal:
			if _, err := r.stream.Write(f.raw()); err != nil {
				return // follow sees it too
			}
		default:
			_ = r.stream.Close()
			return
		}
	}
}

// follow passes on what the command sends until its end, and records it.
func (r *run) follow() {
	defer r.stream.Close()
	exit, err := r.output()
	if err != nil {
		r.job.Lost(err.Error())
		sendError(r.out, lost(err))
	} else {
		r.job.Done(&exit, exit.Error) // before the client can ask for it
		sendJSON(r.out, proto.KindExit, exit)
	}
	r.dismiss()
}

// dismiss lets the client go.
func (r *run) dismiss() {
	select {
	case <-r.answered:
	default:
		close(r.answered)
	}
}

func (r *run) output() (exit proto.ExitStatus, err error) {
	f := newFrame()
	defer f.free()
	begun := false
	for {
		if err := f.read(r.stream); err != nil {
			return exit, noEOF(err)
		}
		switch kind := f.kind(); {
		case kind == proto.KindStarted && !begun:
			begun = true
			err = r.begun(f)
		case kind == proto.KindStdout || kind == proto.KindStderr:
			r.job.Output(kind, f.data())
			_, err = r.out.Write(f.raw())
		case kind == proto.KindExit:
			return decodeExit(f.data())
		default:
			return exit, errRules
		}
		if err != nil {
			return exit, err
		}
	}
}

// begun tells the client that its command runs, with the job's id, which only we know.
func (r *run) begun(f *frame) error {
	var started proto.Started
	if err := json.Unmarshal(f.data(), &started); err != nil {
		return errRules
	}
	started.Job = r.job.ID()
	sendJSON(r.out, proto.KindStarted, started)
	if r.detach {
		r.out = io.Discard
		r.dismiss()
	}
	return nil
}

// decodeExit takes the end of a command from the guest, with its texts bounded and plain.
func decodeExit(data []byte) (proto.ExitStatus, error) {
	var exit proto.ExitStatus
	if err := json.Unmarshal(data, &exit); err != nil {
		return exit, errRules
	}
	exit.Code &= 0xff
	exit.Signal = plain(exit.Signal[:min(len(exit.Signal), 32)])
	exit.Error = plain(exit.Error[:min(len(exit.Error), 1024)])
	exit.DurationUS = max(exit.DurationUS, 0)
	return exit, nil
}

// noEOF says that an end is too early.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sendJSON sends one frame; a client that has left misses it.
func sendJSON(w io.Writer, kind proto.Kind, v any) {
	if data, err := json.Marshal(v); err == nil && len(data) <= proto.MaxChunk {
		_ = proto.WriteStreamFrame(w, kind, data)
	}
}

// sendError ends a stream.
func sendError(w io.Writer, err error) {
	code, message, hint := fault.Public(err)
	sendJSON(w, proto.KindError, proto.StreamError{Code: string(code), Message: message, Hint: hint})
}
