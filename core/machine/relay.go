package machine

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"sync"

	"capsem/core/fault"
	"capsem/core/link"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// terminal joins a client with a PTY session of the guest; the session outlives the client.
func (w *Worker) terminal(ctx context.Context, c *client, req *proto.TerminalOpen) error {
	a, err := w.guest(ctx)
	if err != nil {
		return refuse(c, err)
	}
	req.Env = w.withCredentials(req.Env)
	st, err := a.Terminal(ctx, req)
	if err != nil {
		return refuse(c, w.lost(err))
	}
	defer st.Close()
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		return err //nolint:wrapcheck // the client left
	}
	unwatch := safesocket.OnHangUp(c.Conn, func() bool { _ = st.Close(); return true })
	defer unwatch()
	var input sync.WaitGroup
	defer input.Wait()
	defer c.Close() // everything is said; input ends with it
	input.Go(func() { feed(c, st, func() {}, proto.KindStdin, proto.KindResize) })
	f := newFrame()
	defer f.free()
	for {
		err := f.read(st)
		switch {
		case err != nil:
		case f.kind() == proto.KindStdout:
			_, err = c.Write(f.raw())
		case f.kind() == proto.KindExit:
			var exit proto.ExitStatus
			if exit, err = decodeExit(f.data()); err == nil {
				sendJSON(c, proto.KindExit, exit)
				return nil
			}
		default:
			err = errRules
		}
		if err != nil {
			sendError(c, w.lost(noEOF(err)))
			return nil
		}
	}
}

// feed passes the client's frames of the given kinds on, and closes the stream when the client leaves or sends another kind. If the
// client did that, left is called before: who reads the stream is to know why it ended.
func feed(c *client, st link.Stream, left func(), kinds ...proto.Kind) {
	defer st.Close()
	for {
		f, err := c.next()
		if err != nil || !slices.Contains(kinds, f.kind()) {
			f.free()
			left()
			return
		}
		_, err = st.Write(f.raw())
		f.free()
		if err != nil {
			return
		}
	}
}

// file does one file operation in the guest.
func (w *Worker) file(ctx context.Context, c *client, req *proto.FileRequest) error {
	a, err := w.guest(ctx)
	if err != nil {
		return refuse(c, err)
	}
	life, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	what := plain(string(req.Op) + " " + req.Root + "/" + req.Path)
	job, err := w.jobs.Begin("file", what, false, func() { stop(errCancelled) })
	if err != nil {
		return refuse(c, err)
	}
	st, err := a.File(ctx, req)
	if err != nil {
		job.Lost(err.Error())
		return refuse(c, w.lost(err))
	}
	defer st.Close()
	unhook := context.AfterFunc(life, func() { _ = st.Close() }) // the guest gives the operation up
	defer unhook()
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		job.Lost(clientLeft)
		return err //nolint:wrapcheck // the client left
	}
	unwatch := safesocket.OnHangUp(c.Conn, func() bool { stop(errLeft); return true })
	defer unwatch()
	var input sync.WaitGroup
	defer input.Wait()
	defer c.Close() // everything is said; input ends with it
	input.Go(func() { feed(c, st, func() { stop(errLeft) }, proto.KindData) })
	result, err := fileResult(c, st)
	if err != nil {
		if why := context.Cause(life); why != nil {
			err = why
		}
		lost := w.lost(err)
		job.Lost(lost.Message)
		sendError(c, lost)
		return nil
	}
	job.Done(nil, result.Message)
	sendJSON(c, proto.KindResult, result)
	return nil
}

// Why a file operation ends early without the guest having a say.
var (
	errCancelled = fault.New(fault.Unavailable, "cancelled")
	errLeft      = fault.New(fault.Unavailable, clientLeft)
)

// fileResult passes content on until the result.
func fileResult(c *client, st link.Stream) (result proto.FileResult, err error) {
	f := newFrame()
	defer f.free()
	for {
		if err := f.read(st); err != nil {
			return result, noEOF(err)
		}
		switch f.kind() {
		case proto.KindData:
			if _, err := c.Write(f.raw()); err != nil {
				return result, err //nolint:wrapcheck // the client left
			}
		case proto.KindResult:
			return decodeResult(f.data())
		default:
			return result, errRules
		}
	}
}

// decodeResult takes a result from the guest, with its texts bounded.
func decodeResult(data []byte) (proto.FileResult, error) {
	var r proto.FileResult
	if err := json.Unmarshal(data, &r); err != nil || (!r.OK && r.Message == "") {
		return r, errRules
	}
	r.Message = plain(r.Message[:min(len(r.Message), 1024)])
	if !knownCode(r.Code) {
		r.Code = string(fault.Internal)
	}
	if r.Info != nil && (len(r.Info.Path) > proto.MaxPath || len(r.Info.Target) > proto.MaxPath || len(r.Info.Mode) > 8 || len(r.Info.Type) > 16) {
		return r, errRules
	}
	return r, nil
}

// knownCode reports whether a guest may say that code: those of faults with files, and none.
func knownCode(code string) bool {
	return code == "" || slices.Contains([]fault.Code{
		fault.Invalid, fault.Forbidden, fault.NotFound, fault.Conflict, fault.TooLarge, fault.OutOfRange, fault.NoSpace, fault.Internal,
	}, fault.Code(code))
}

// forward joins a client with a TCP port of the guest's loopback. Each side may end its own direction first.
func (w *Worker) forward(ctx context.Context, c *client, port uint16) error {
	a, err := w.guest(ctx)
	if err != nil {
		return refuse(c, err)
	}
	st, err := a.Forward(ctx, port)
	if err != nil {
		return refuse(c, w.lost(err))
	}
	defer st.Close()
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		return err //nolint:wrapcheck // the client left
	}
	sent := safesocket.NewProgress(st)
	unwatch := safesocket.OnHangUp(c.Conn, func() bool {
		if !sent.Stuck() {
			return false // it may have left right after its last byte, and that is still on its way
		}
		_ = st.Close() // whatever it says, it is over
		return true
	})
	defer unwatch()
	var up sync.WaitGroup
	up.Go(func() {
		if pour(sent, c) == nil {
			closeWrite(st)
			safesocket.HungUp(c.Conn) // half of the client may have ended, or all of it
		}
		_ = st.Close() // the other direction ends too
	})
	err = pour(c, st)
	if err == nil {
		closeWrite(c.Conn)
		up.Wait()
		return nil
	}
	_, _ = st.Close(), c.Close() // one may be gone already
	up.Wait()
	return nil
}

// pour copies through one pooled buffer.
func pour(to io.Writer, from io.Reader) error {
	f := newFrame()
	defer f.free()
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, f.buf[:])
	return err //nolint:wrapcheck // only whether there is one matters
}

func closeWrite(conn any) {
	if half, ok := conn.(link.CloseWriter); ok {
		_ = half.CloseWrite() // the other side may have gone already
	}
}
