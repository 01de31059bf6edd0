package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/fault"
	"capsem/core/link"
	"capsem/core/machine/jobs"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// cancelTime is how long the guest may take to report the end of a command that was killed.
const cancelTime = 2 * time.Second

// startTime is how long the guest may take to say that a detached command runs.
const startTime = 30 * time.Second

// exec runs a command. Attached, its stream is the client's connection and ends with it; detached, the client gets Started and
// the command goes on.
func (w *Worker) exec(ctx context.Context, c *client, req *proto.ExecRequest, detach bool) error {
	a, err := w.guest(ctx)
	if err != nil {
		return refuse(c, err)
	}
	r := &run{worker: w, out: c, began: time.Now(), opened: make(chan struct{}), answered: make(chan struct{}), detach: detach}
	if r.job, err = w.jobs.Begin("exec", describe(req), detach, r.cancel); err != nil {
		return refuse(c, err)
	}
	req.ID = r.job.ID()
	req.Env = w.withCredentials(req.Env)
	r.command = describe(req)
	r.stream, err = a.Exec(ctx, req)
	close(r.opened)
	if err != nil {
		r.job.Lost(err.Error())
		return refuse(c, w.lost(err))
	}
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		r.job.Lost(clientLeft)
		return errors.Join(err, r.stream.Close())
	}
	if detach {
		leave, err := w.activity.enter(w.idNow())
		if err != nil { // it is suspended with the VM, and goes on with it
			leave = func() {}
		}
		w.work.Go(func() {
			defer leave()
			r.follow()
		})
		r.awaitStart(ctx, c)
		return nil
	}
	unwatch := safesocket.OnHangUp(c.Conn, r.leave)
	defer unwatch()
	var input sync.WaitGroup
	input.Go(func() { r.input(c) })
	r.follow()
	_ = c.Close() // everything is said; input ends with it
	input.Wait()
	return nil
}

// awaitStart returns when the client of a detached command knows that it runs. One that leaves before, and a guest that does not
// say it, end the command.
func (r *run) awaitStart(ctx context.Context, c *client) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c.lookout(cancel)
	select {
	case <-r.answered:
		return
	case <-ctx.Done():
	}
	if r.settled.CompareAndSwap(false, true) { // else it has been told, and may well leave
		_ = r.stream.Close() // follow says why
	}
	<-r.answered
}

// clientLeft is why a job ended whose client went away.
const clientLeft = "its client left"

func describe(req *proto.ExecRequest) string {
	text := req.Command
	if text == "" {
		text = strings.Join(req.Argv, " ")
	}
	return plain(text)
}

// lost is the error of a stream that ended before its result.
func (w *Worker) lost(err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if errors.Is(err, proto.ErrBadStreamFrame) || errors.Is(err, errRules) {
		return fault.Wrap(err, fault.Internal, "the guest broke the rules of its stream: %s", err)
	}
	w.mu.Lock()
	id, rebooting, suspending := w.spec.ID, w.reboot, w.suspending
	w.mu.Unlock()
	switch {
	case suspending:
		return fault.Wrap(err, fault.Unavailable, "VM %s was suspended while this was going on", id).
			WithHint("a command goes on when the VM does: capsem resume %s", id)
	case w.wanted():
		return fault.Wrap(err, fault.Unavailable, "VM %s was stopped while this was going on", id)
	case rebooting:
		return fault.Wrap(err, fault.Unavailable, "VM %s was rebooted while this was going on", id).WithHint("try again in a moment")
	}
	return fault.Wrap(err, fault.Unavailable, "the link to VM %s broke while this was going on", id).WithHint("see capsem list and capsem logs %s", id)
}

// errRules is a frame that the guest may not send, or not then.
var errRules = errors.New("unexpected frame")

// run is one command with its client.
type run struct {
	worker *Worker
	job    *jobs.Job
	detach bool
	// command and began are for the record.
	command string
	began   time.Time
	// stream is the guest's side, set once opened is closed; nil if the guest did not take it.
	stream link.Stream
	opened chan struct{}
	// out is the client; nobody, once the client of a detached command knows that it runs.
	out io.Writer
	// answered is closed when nothing more is to be sent to the client.
	answered chan struct{}
	// settled says that the client of a detached command is told that it runs, or has left before.
	settled atomic.Bool

	writing sync.Mutex // frames to the guest are never mixed

	mu              sync.Mutex
	left, cancelled bool
}

// send passes a whole frame to the guest.
func (r *run) send(frame []byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	_, err := r.stream.Write(frame)
	return err //nolint:wrapcheck // only whether there is one matters
}

// cancel kills the command's process group; a guest that does not say how that ended loses the stream, which kills it too.
func (r *run) cancel() {
	<-r.opened
	if r.stream == nil {
		return // it could not be started
	}
	r.mu.Lock()
	r.cancelled = true
	r.mu.Unlock()
	timer := time.AfterFunc(cancelTime, func() { _ = r.stream.Close() })
	if r.send([]byte{byte(proto.KindSignal), 0, 0, 0, 1, sigKill}) != nil {
		timer.Reset(0)
	}
}

// sigKill is Linux's number, the guest's.
const sigKill = 9

// input passes on what the client sends, until it leaves, which ends the command.
func (r *run) input(c *client) {
	for {
		f, err := c.next()
		if err == nil && !isInput(f.kind()) {
			err = errRules
		}
		if err == nil {
			err = r.send(f.raw())
		}
		f.free()
		if err != nil {
			r.leave()
			return
		}
	}
}

// leave ends the command, since its client is gone. It is also called while input waits for a guest that does not take it.
func (r *run) leave() bool {
	r.mu.Lock()
	r.left = true
	r.mu.Unlock()
	_ = r.stream.Close() // whatever it says, it is over
	return true
}

func isInput(k proto.Kind) bool {
	return k == proto.KindStdin || k == proto.KindResize || k == proto.KindSignal
}

// follow passes on what the command sends until its end, and records it.
func (r *run) follow() {
	defer r.dismiss()
	defer r.record()
	defer r.stream.Close()
	exit, err := r.output()
	r.mu.Lock()
	left, cancelled := r.left, r.cancelled
	r.mu.Unlock()
	switch {
	case err == nil && cancelled && exit.Error == "":
		exit.Error = "cancelled"
	case err == nil:
	case cancelled:
		r.job.Lost("cancelled")
		sendError(r.out, fault.New(fault.Unavailable, "the command was cancelled"))
		return
	case left:
		r.job.Lost(clientLeft)
		return
	default:
		why := r.worker.lost(err)
		r.job.Lost(why.Message)
		sendError(r.out, why)
		return
	}
	r.job.Done(&exit, exit.Error) // before the client can ask for it
	sendJSON(r.out, proto.KindExit, exit)
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
	r.settled.Store(true)
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
