package guestlink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"

	"capsem/core/link"
	"capsem/core/proto"
)

// Exec starts a command. Stream frames follow as proto.ExecRequest says; closing the stream ends the command.
func (a *Agent) Exec(ctx context.Context, req *proto.ExecRequest) (link.Stream, error) {
	return a.request(ctx, proto.PortExec, "exec", req)
}

// Terminal starts a view of a PTY session. Stream frames follow as proto.TerminalOpen says.
func (a *Agent) Terminal(ctx context.Context, req *proto.TerminalOpen) (link.Stream, error) {
	return a.request(ctx, proto.PortTerminal, "terminal", req)
}

// File starts a file operation. Stream frames follow as proto.FileRequest says.
func (a *Agent) File(ctx context.Context, req *proto.FileRequest) (link.Stream, error) {
	return a.request(ctx, proto.PortAgentFiles, "file", req)
}

// SyncFiles has the guest write out the file system that a directory of it is on.
func (a *Agent) SyncFiles(ctx context.Context, dir string) error {
	st, err := a.File(ctx, &proto.FileRequest{Op: proto.FileSync, Root: dir})
	if err != nil {
		return err
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	kind, data, err := proto.NewStreamReader(st).Next()
	if err != nil {
		return fmt.Errorf("sync files: %w", err)
	}
	var result proto.FileResult
	if kind != proto.KindResult || json.Unmarshal(data, &result) != nil || !result.OK {
		return fmt.Errorf("sync files: the guest says %.200q", result.Message)
	}
	return nil
}

// Forward connects to a TCP port on the guest's loopback; raw bytes follow. The first Read fails with link.ErrRefused
// when nothing listens there.
func (a *Agent) Forward(ctx context.Context, port uint16) (link.Stream, error) {
	dest := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	s, err := a.session.Open(ctx, proto.StreamHeader{Port: proto.PortForward, Dest: dest})
	if err != nil {
		return nil, fmt.Errorf("open forward stream: %w", err)
	}
	return s, nil
}

// request opens a stream with header and request in one write.
func (a *Agent) request(ctx context.Context, port proto.Port, what string, req interface{ Validate() error }) (link.Stream, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	var frame bytes.Buffer
	if err := proto.WriteFrame(&frame, req); err != nil {
		return nil, err
	}
	s, err := link.OpenWith(ctx, a.session, proto.StreamHeader{Port: port}, frame.Bytes())
	if err != nil {
		return nil, fmt.Errorf("open %s stream: %w", what, err)
	}
	return s, nil
}
