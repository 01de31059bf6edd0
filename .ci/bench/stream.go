package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"capsem/core/api"
	"capsem/core/proto"
)

// stream runs a command over the upgraded route and counts the bytes of its standard output.
func (a *localAPI) stream(ctx context.Context, id string, cmd api.ExecRequest) (int64, error) {
	conn, err := dialer(a.socket)(ctx, "", "")
	if err != nil {
		return 0, fmt.Errorf("dial the service: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/exec/"+id+"/stream", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", api.UpgradeStream)
	if err := req.Write(conn); err != nil {
		return 0, fmt.Errorf("send the request: %w", err)
	}
	in := bufio.NewReaderSize(conn, 128<<10)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return 0, errors.New("exec stream: " + resp.Status)
	}
	text, err := json.Marshal(cmd)
	if err != nil {
		return 0, fmt.Errorf("encode the command: %w", err)
	}
	if err := proto.WriteStreamFrame(conn, proto.KindData, text); err != nil {
		return 0, fmt.Errorf("send the command: %w", err)
	}
	return countStdout(in)
}

// countStdout reads stream frames to the end of a command and counts its output.
func countStdout(r io.Reader) (int64, error) { return copyStdout(io.Discard, r) }

// copyStdout reads stream frames to the end of a command, copies its output and counts it.
func copyStdout(w io.Writer, r io.Reader) (int64, error) {
	frames := proto.NewStreamReader(r)
	var total int64
	for {
		kind, data, err := frames.Next()
		if err != nil {
			return total, fmt.Errorf("read the command's stream: %w", err)
		}
		switch kind {
		case proto.KindStdout:
			total += int64(len(data))
			if _, err := w.Write(data); err != nil {
				return total, fmt.Errorf("copy the command's output: %w", err)
			}
		case proto.KindExit:
			var exit proto.ExitStatus
			if err := json.Unmarshal(data, &exit); err != nil {
				return total, fmt.Errorf("read the exit: %w", err)
			}
			if exit.Code != 0 {
				return total, fmt.Errorf("the command ended with %d %s", exit.Code, exit.Error)
			}
			return total, nil
		case proto.KindError:
			return total, fmt.Errorf("the command was given up: %s", data)
		default:
		}
	}
}
