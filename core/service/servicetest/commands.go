package servicetest

import (
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"capsem/core/lifecycle"
	"capsem/core/proto"
)

type job struct {
	proto.Job
	cancel chan struct{}
	done   chan struct{}
}

func (w *worker) listJobs() []proto.Job {
	var out []proto.Job
	for _, j := range slices.Backward(w.jobs) {
		out = append(out, j.Job)
	}
	return out
}

// oneJob is called with mu held.
func (w *worker) oneJob(req proto.WorkerRequest) proto.WorkerReply {
	for _, j := range w.jobs {
		if j.ID != req.Job {
			continue
		}
		switch req.Op {
		case proto.OpCancelJob:
			close(j.cancel)
			fallthrough
		case proto.OpWaitJob:
			w.mu.Unlock()
			<-j.done
			w.mu.Lock()
		}
		return proto.WorkerReply{Jobs: []proto.Job{j.Job}}
	}
	return refusal("not_found", "there is no job "+req.Job)
}

// exec "runs" a command: see run.
func (w *worker) exec(conn net.Conn, req proto.WorkerRequest) {
	text := req.Exec.Command
	if text == "" {
		text = strings.Join(req.Exec.Argv, " ")
	}
	w.mu.Lock()
	j := &job{
		Job:    proto.Job{ID: "job-" + strconv.Itoa(len(w.jobs)+1), Kind: "exec", What: text, State: proto.JobRunning, Detached: req.Detach},
		cancel: make(chan struct{}), done: make(chan struct{}),
	}
	w.jobs = append(w.jobs, j)
	w.mu.Unlock()
	_ = proto.WriteStreamFrame(conn, proto.KindStarted, encode(proto.Started{Job: j.ID, PID: 42}))
	gone := make(chan struct{})
	stdin, feed := io.Pipe()
	go func() {
		defer close(gone)
		frames := proto.NewStreamReader(conn)
		for {
			kind, data, err := frames.Next()
			if err != nil {
				_ = feed.CloseWithError(io.ErrUnexpectedEOF)
				return
			}
			if kind == proto.KindStdin && len(data) == 0 {
				_ = feed.Close()
			} else if kind == proto.KindStdin {
				_, _ = feed.Write(data)
			}
		}
	}()
	leave := gone
	if req.Detach {
		_ = conn.Close()
		leave = nil
	}
	exit := w.run1(conn, text, stdin, leave, j.cancel)
	w.mu.Lock()
	j.State, j.Exit = proto.JobDone, &exit
	w.mu.Unlock()
	close(j.done)
	_ = proto.WriteStreamFrame(conn, proto.KindExit, encode(exit))
}

// run1 knows: env NAME (of the credentials it was told of), disk TEXT, memory TEXT, what (see remember), echo TEXT, err TEXT, exit N, cat, hang, spam BYTES, die, poweroff, crash (hypervisor), fail (error frame).
func (w *worker) run1(conn net.Conn, text string, stdin io.Reader, gone, cancel <-chan struct{}) proto.ExitStatus {
	word, rest, _ := strings.Cut(text, " ")
	n, _ := strconv.Atoi(rest)
	if out, ok := w.remember(word, rest); ok {
		_ = proto.WriteStreamFrame(conn, proto.KindStdout, []byte(out))
		return proto.ExitStatus{DurationUS: 5}
	}
	switch word {
	case "env":
		w.mu.Lock()
		text := w.env[rest]
		w.mu.Unlock()
		_ = proto.WriteStreamFrame(conn, proto.KindStdout, []byte(text+"\n"))
	case "echo":
		_ = proto.WriteStreamFrame(conn, proto.KindStdout, []byte(rest+"\n"))
	case "err":
		_ = proto.WriteStreamFrame(conn, proto.KindStderr, []byte(rest+"\n"))
	case "exit":
		return proto.ExitStatus{Code: n, DurationUS: 5}
	case "cat":
		buf := make([]byte, proto.MaxChunk)
		for {
			n, err := stdin.Read(buf)
			if err != nil {
				break
			}
			_ = proto.WriteStreamFrame(conn, proto.KindStdout, buf[:n])
		}
	case "hang":
		select {
		case <-gone:
		case <-cancel:
		case <-w.over:
		}
		return proto.ExitStatus{Code: 137, Signal: "SIGKILL"}
	case "spam":
		chunk := make([]byte, proto.MaxChunk)
		for ; n > 0; n -= len(chunk) {
			if proto.WriteStreamFrame(conn, proto.KindStdout, chunk[:min(n, len(chunk))]) != nil {
				break
			}
		}
	case "die":
		die()
	case "crash":
		w.set(lifecycle.Defunct, "QEMU died")
		w.end()
	case "poweroff":
		w.down(proto.OpStop)
	case "fail":
		_ = proto.WriteStreamFrame(conn, proto.KindError, encode(proto.StreamError{Code: "unavailable", Message: "the link broke", Hint: "wait"}))
	default:
		return proto.ExitStatus{Code: 127, Error: word + ": command not found"}
	}
	return proto.ExitStatus{DurationUS: 5}
}

// forward echoes; the connection's halves end one by one.
func (w *worker) forward(conn net.Conn, req proto.WorkerRequest) {
	_, _ = io.WriteString(conn, "port "+strconv.Itoa(int(req.ForwardPort))+"\n")
	_, _ = io.Copy(conn, conn)
	_, _ = io.WriteString(conn, "end\n")
}

func (w *worker) terminal(conn net.Conn, _ proto.WorkerRequest) {
	_ = proto.WriteStreamFrame(conn, proto.KindStdout, []byte("$ "))
	_, _ = io.Copy(io.Discard, conn)
}
