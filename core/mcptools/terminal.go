package mcptools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

const (
	// replayTime is how long the first word of a terminal may take, pauseTime how long a pause in its past may last.
	replayTime = 5 * time.Second
	pauseTime  = 150 * time.Millisecond
	// maxReplay bounds the past that a guest may send, in bytes.
	maxReplay = 256 << 10
)

// awake reports whether a VM runs, so that looking at it does not wake it.
func awake(info api.SandboxInfo) bool { return info.Status == lifecycle.Running }

// terminal is what the terminal of a VM showed last. It only peeks: no shell is started, and no size changed.
func terminal(ctx context.Context, svc *client.Client, id string) ([]byte, error) {
	info, err := svc.Info(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	if !awake(info) {
		return nil, fault.New(fault.Conflict, "VM %s does not run, so it has no terminal", id).WithHint("its transcript is kept: %s", vmURI(id, "transcript"))
	}
	reply, err := svc.Terminal(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	worker, err := workerclient.Dial(ctx, reply.UDSPath)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	conn, err := worker.Stream(ctx, proto.WorkerRequest{
		Op: proto.OpTerminal, Terminal: &proto.TerminalOpen{Peek: true, Size: proto.WindowSize{Cols: 80, Rows: 24}},
	})
	if err != nil {
		return nil, errors.Join(err, worker.Close())
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var out []byte
	frames := proto.NewStreamReader(conn)
	wait := replayTime
	for {
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, fmt.Errorf("read terminal: %w", err)
		}
		kind, data, err := frames.Next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF), err == nil && kind != proto.KindStdout:
			return out, nil
		case err != nil:
			return nil, fault.Wrap(err, fault.Unavailable, "the terminal of VM %s went away", id)
		}
		if out = append(out, data...); len(out) > maxReplay {
			return out[:maxReplay], nil
		}
		wait = pauseTime
	}
}
