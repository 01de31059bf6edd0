package mcptools

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/client"
)

// maxCompletions is how many values a completion may have.
const maxCompletions = 100

// complete answers completion/complete: names of VMs, images and logs, and paths. A service that does not run is not started.
func (s *Server) complete(ctx context.Context, req *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
	arg := req.Params.Argument
	var all []string
	switch arg.Name {
	case "id", "vm":
		all = vmNames(ctx, s.opts.Client)
	case "image", "name":
		all = imageNames(ctx, s.opts.Client)
	case "log":
		all = []string{"process", "serial"}
	case "stream":
		all = []string{"stderr", "stdout"}
	case "path":
		all = s.pathsOf(ctx, req.Params)
	}
	all = slices.DeleteFunc(all, func(v string) bool { return !strings.HasPrefix(v, arg.Value) })
	slices.Sort(all)
	total := len(all)
	all = all[:min(total, maxCompletions)]
	if all == nil {
		all = []string{}
	}
	return &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: all, Total: total, HasMore: total > len(all)}}, nil
}

func vmNames(ctx context.Context, svc *client.Client) []string {
	list, err := svc.List(ctx)
	if err != nil {
		return nil
	}
	var all []string
	for _, vm := range list.Sandboxes {
		if vm.Name != "" {
			all = append(all, vm.Name)
		} else {
			all = append(all, vm.ID)
		}
	}
	return all
}

func imageNames(ctx context.Context, svc *client.Client) []string {
	list, err := svc.Images(ctx)
	if err != nil {
		return nil
	}
	var all []string
	for _, image := range list.Images {
		all = append(all, image.Name)
	}
	return all
}

// pathsOf are the files of the directory that the value so far is in.
func (s *Server) pathsOf(ctx context.Context, params *mcp.CompleteParams) []string {
	if params.Context == nil {
		return nil
	}
	id := params.Context.Arguments["id"]
	if id == "" {
		id = params.Context.Arguments["vm"]
	}
	info, err := s.opts.Client.Info(ctx, id)
	if id == "" || err != nil || !awake(info) {
		return nil
	}
	dir := path.Dir(params.Argument.Value + "x") // of the name so far, also when that is empty
	list, err := s.opts.Client.ListFiles(ctx, id, dir, 1)
	if err != nil {
		return nil
	}
	var all []string
	for _, f := range list.Files {
		name := path.Join(dir, path.Base(f.Path))
		if f.Type == "dir" {
			name += "/"
		}
		all = append(all, name)
	}
	return all
}
