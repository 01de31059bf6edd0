package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"capsem/core/api"
	"capsem/core/proto"
)

// dialer connects to one unix socket.
func dialer(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
}

// localAPI is the least client of the service: plain net/http over its socket, connections kept alive.
type localAPI struct {
	socket string
	http   *http.Client
}

func newLocalAPI(socket string) *localAPI {
	return &localAPI{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dialer(socket), MaxIdleConnsPerHost: 64,
	}}}
}

// call sends body as JSON and decodes the answer into reply; both may be nil.
func (a *localAPI) call(ctx context.Context, method, path string, body, reply any) error {
	var in io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, in)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(text, reply); err != nil {
		return fmt.Errorf("%s %s: decode: %w", method, path, err)
	}
	return nil
}

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
func countStdout(r io.Reader) (int64, error) {
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
