package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/api"
	"capsem/core/mcp/peer"
	"capsem/core/proto"
)

type showInput struct {
	StartIndex int    `json:"start_index,omitempty" jsonschema:"where to begin, in bytes of the result"`
	MaxLength  int    `json:"max_length,omitempty" jsonschema:"how much to answer with, in bytes; 5000 if not given"`
	Format     string `json:"format,omitempty" jsonschema:"text (the default) or json"`
}

type revertInput struct {
	Path       string `json:"path" jsonschema:"a file or directory in /root; . is everything"`
	Checkpoint string `json:"checkpoint,omitempty" jsonschema:"a snapshot such as cp-3; the newest that differs if not given"`
}

type nameInput struct {
	Name string `json:"name" jsonschema:"1 to 64 letters, digits, - and _"`
}

type checkpointInput struct {
	Checkpoint string `json:"checkpoint" jsonschema:"a snapshot such as cp-3"`
}

type pathInput struct {
	Path string `json:"path" jsonschema:"a file or directory in /root"`
}

type compactInput struct {
	Checkpoints []string `json:"checkpoints" jsonschema:"the snapshots to make one of"`
	Name        string   `json:"name,omitempty" jsonschema:"the name of the new one; compacted_TIME if not given"`
}

func changes(destructive bool) *sdk.ToolAnnotations {
	world := false
	return &sdk.ToolAnnotations{DestructiveHint: &destructive, OpenWorldHint: &world}
}

func (s *server) addSnapshots(to *sdk.Server) {
	sdk.AddTool(to, &sdk.Tool{Name: "snapshots_changes", Description: "What has changed in /root since it was last copied.", Annotations: readOnly(false)},
		func(ctx context.Context, _ *sdk.CallToolRequest, in showInput) (*sdk.CallToolResult, any, error) {
			return s.show(ctx, &in, proto.SnapshotChanges, &api.WorkspaceChangesReply{})
		})
	sdk.AddTool(to, &sdk.Tool{Name: "snapshots_list", Description: "The copies of /root that there are.", Annotations: readOnly(false)},
		func(ctx context.Context, _ *sdk.CallToolRequest, in showInput) (*sdk.CallToolResult, any, error) {
			return s.show(ctx, &in, proto.SnapshotList, &api.SnapshotsReply{})
		})
	sdk.AddTool(to, &sdk.Tool{
		Name: "snapshots_revert", Annotations: changes(true),
		Description: "Puts a file or directory back as it was in a copy of /root. What it replaces is copied before.",
	}, func(ctx context.Context, _ *sdk.CallToolRequest, in revertInput) (*sdk.CallToolResult, any, error) {
		return s.plain(ctx, &proto.SnapshotRequest{Op: proto.SnapshotRevert, Path: []byte(in.Path), Checkpoint: in.Checkpoint})
	})
	sdk.AddTool(to, &sdk.Tool{Name: "snapshots_create", Description: "Makes a copy of /root to come back to.", Annotations: changes(false)},
		func(ctx context.Context, _ *sdk.CallToolRequest, in nameInput) (*sdk.CallToolResult, any, error) {
			return s.plain(ctx, &proto.SnapshotRequest{Op: proto.SnapshotCreate, Name: in.Name})
		})
	sdk.AddTool(to, &sdk.Tool{Name: "snapshots_delete", Description: "Removes a copy of /root that was made in this VM.", Annotations: changes(true)},
		func(ctx context.Context, _ *sdk.CallToolRequest, in checkpointInput) (*sdk.CallToolResult, any, error) {
			return s.plain(ctx, &proto.SnapshotRequest{Op: proto.SnapshotDelete, Checkpoint: in.Checkpoint})
		})
	sdk.AddTool(to, &sdk.Tool{Name: "snapshots_history", Description: "A file or directory in all copies of /root.", Annotations: readOnly(false)},
		func(ctx context.Context, _ *sdk.CallToolRequest, in pathInput) (*sdk.CallToolResult, any, error) {
			return s.plain(ctx, &proto.SnapshotRequest{Op: proto.SnapshotHistory, Path: []byte(in.Path)})
		})
	sdk.AddTool(to, &sdk.Tool{Name: "snapshots_compact", Description: "Makes one copy of /root of several.", Annotations: changes(true)},
		func(ctx context.Context, _ *sdk.CallToolRequest, in compactInput) (*sdk.CallToolResult, any, error) {
			if in.Name == "" {
				in.Name = fmt.Sprintf("compacted_%d", time.Now().Unix())
			}
			return s.plain(ctx, &proto.SnapshotRequest{Op: proto.SnapshotCompact, Checkpoints: in.Checkpoints, Name: in.Name})
		})
}

// ask has the worker do a request and gives its JSON.
func (s *server) ask(ctx context.Context, req *proto.SnapshotRequest) ([]byte, error) {
	if err := req.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // said as it is
	}
	body, err := peer.Marshal(req)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	return s.worker.Call(ctx, MethodSnapshot, body) //nolint:wrapcheck // the worker's words
}

// plain answers with the worker's JSON.
func (s *server) plain(ctx context.Context, req *proto.SnapshotRequest) (*sdk.CallToolResult, any, error) {
	body, err := s.ask(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	return text(string(body)), nil, nil
}

// show answers with a part of a list, as text or JSON.
func (s *server) show(ctx context.Context, in *showInput, op proto.SnapshotOp, reply interface{ Text() string }) (*sdk.CallToolResult, any, error) {
	if in.Format != "" && in.Format != "text" && in.Format != "json" {
		return nil, nil, fmt.Errorf("format is %.40q, not text or json", in.Format)
	}
	body, err := s.ask(ctx, &proto.SnapshotRequest{Op: op})
	if err != nil {
		return nil, nil, err
	}
	out := string(body)
	if in.Format != "json" {
		if err := json.Unmarshal(body, reply); err != nil {
			return nil, nil, errors.New("the worker's answer is none")
		}
		out = reply.Text()
	}
	if in.StartIndex == 0 && len(out) <= max(in.MaxLength, defaultLength) {
		return text(out), nil, nil
	}
	return text(window(out, in.StartIndex, in.MaxLength)), nil, nil
}
