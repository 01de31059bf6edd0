//go:build linux

// Package snapshots is the command "snapshots" in the guest: it asks the host for copies of the workspace, and to put files back.
package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/guest/layout"
	"capsem/core/proto"
)

const help = `snapshots: copies of /root, and the way back to them.

  snapshots list                        all of them, oldest first
  snapshots create [NAME]               make one
  snapshots changes                     what has changed since
  snapshots diff SNAPSHOT [SNAPSHOT|now [PATH]]
  snapshots revert PATH [SNAPSHOT]      put a file or directory back; . is everything
  snapshots history PATH                a path in all of them
  snapshots delete SNAPSHOT             remove one that was made here
  snapshots compact SNAPSHOT...         make one of several
  snapshots cat SNAPSHOT PATH           print a file of one

With --json they answer in JSON. One is made automatically every few minutes. A revert can be reverted: it says how.
`

// maxAnswer bounds the host's answer in bytes.
const maxAnswer = 256 << 20

// Tool is one call of the command.
type Tool struct {
	// Socket is the agent's; Out gets what is printed. Dir is the working directory, which relative paths are in.
	Socket string
	Out    io.Writer
	Dir    string
}

// texter is an answer that can be read as it is.
type texter interface{ Text() string }

// Run does what the arguments say.
func (t Tool) Run(ctx context.Context, args []string) error {
	asJSON := slices.Contains(args, "--json")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--json" })
	if len(args) == 0 || slices.Contains(args, "--help") || slices.Contains(args, "-h") || args[0] == "help" {
		fmt.Fprint(t.Out, help)
		return nil
	}
	req, reply, err := t.request(args)
	if err != nil {
		return err
	}
	body, err := t.ask(ctx, req)
	if err != nil {
		return err
	}
	defer body.Close()
	if asJSON || reply == nil {
		if _, err := io.Copy(t.Out, io.LimitReader(body, maxAnswer)); err != nil {
			return fmt.Errorf("the host's answer broke off: %w", err)
		}
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(reply); err != nil {
		return fmt.Errorf("the host's answer broke off: %w", err)
	}
	fmt.Fprint(t.Out, reply.Text())
	return nil
}

// success is an answer without words.
type success api.Success

// Text is empty.
func (*success) Text() string { return "" }

// request is what a command line asks for, and what the answer is read into; nil when the answer is not JSON.
func (t Tool) request(args []string) (*proto.SnapshotRequest, texter, error) {
	verb, rest := args[0], args[1:]
	arg := func(i int) string {
		if i < len(rest) {
			return rest[i]
		}
		return ""
	}
	req := &proto.SnapshotRequest{Op: proto.SnapshotOp(verb)}
	var reply texter
	least, most := 0, 0
	switch verb {
	case "list":
		reply = &api.SnapshotsReply{}
	case "create":
		most, reply, req.Name = 1, &api.SnapshotCreated{}, arg(0)
	case "changes":
		reply = &api.WorkspaceChangesReply{}
	case "diff":
		least, most, reply, req.Checkpoint, req.To = 1, 3, &api.SnapshotDiffReply{}, arg(0), arg(1)
		if req.To == "now" {
			req.To = ""
		}
		if len(rest) == 3 {
			req.Path = t.path(arg(2))
		}
	case "revert":
		least, most, reply, req.Path, req.Checkpoint = 1, 2, &api.SnapshotReverted{}, t.path(arg(0)), arg(1)
	case "history":
		least, most, reply, req.Path = 1, 1, &api.SnapshotHistory{}, t.path(arg(0))
	case "delete":
		least, most, reply, req.Checkpoint = 1, 1, &success{}, arg(0)
	case "compact":
		least, most, reply, req.Checkpoints = 1, len(rest), &api.SnapshotCompacted{}, rest
	case "cat":
		least, most, req.Op, req.Checkpoint, req.Path = 2, 2, proto.SnapshotRead, arg(0), t.path(arg(1))
	default:
		return nil, nil, fmt.Errorf("there is no %.40q; see snapshots help", verb)
	}
	if len(rest) < least || len(rest) > most {
		return nil, nil, fmt.Errorf("snapshots %s takes %s; see snapshots help", verb, amount(least, most))
	}
	if err := req.Validate(); err != nil {
		return nil, nil, err //nolint:wrapcheck // shown as it is
	}
	return req, reply, nil
}

func amount(least, most int) string {
	if least == most {
		return fmt.Sprintf("%d arguments", least)
	}
	return fmt.Sprintf("%d to %d arguments", least, most)
}

// path makes a path of the command line one of the workspace: absolute ones are taken as they are, others are in the working directory
// if that is in the workspace.
func (t Tool) path(name string) []byte {
	if filepath.IsAbs(name) {
		return []byte(filepath.Clean(name))
	}
	if t.Dir == layout.Home || strings.HasPrefix(t.Dir, layout.Home+"/") {
		return []byte(filepath.Join(t.Dir, name))
	}
	return []byte(filepath.Join(layout.Home, name))
}

// ask sends a request and returns the answer, which the caller closes.
func (t Tool) ask(ctx context.Context, req *proto.SnapshotRequest) (io.ReadCloser, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", t.Socket)
	if errors.Is(err, unix.EACCES) {
		return nil, errors.New("only root may do that")
	}
	if err != nil {
		return nil, fmt.Errorf("the host cannot be asked: %w", err)
	}
	var reply proto.SnapshotReply
	err = proto.WriteFrame(conn, proto.StreamHeader{Port: proto.PortSnapshots, Process: "snapshots"})
	if err == nil {
		err = proto.WriteFrame(conn, req)
	}
	if err == nil {
		err = proto.ReadFrame(conn, proto.MaxFrame, &reply)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the host does not answer: %w", err), conn.Close())
	}
	if e := reply.Error; e != nil {
		_ = conn.Close() // nothing more comes
		if e.Hint != "" {
			return nil, fmt.Errorf("%s; %s", e.Message, e.Hint)
		}
		return nil, errors.New(e.Message)
	}
	return conn, nil
}
