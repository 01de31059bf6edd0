package mcptools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/lifecycle"
)

const (
	// maxResource bounds what is read of one resource, in bytes; capsem_read_file reads what is longer in parts.
	maxResource = 4 << 20
	// maxListed bounds how many VMs are in the list of resources.
	maxListed = 100

	serviceLogURI = "capsem://service/log"
	vmsURI        = "capsem://vms"
)

// vmURI is a resource of a VM.
func vmURI(id, what string) string { return "capsem://vm/" + url.PathEscape(id) + "/" + what }

// content is what a resource holds.
type content struct {
	data []byte
	mime string
}

// templates are the resources of VMs, outputs and images.
var templates = []mcp.ResourceTemplate{
	{URITemplate: "capsem://vm/{id}/file/{+path}", Name: "file", Title: "File of a VM", Description: "A file or directory of a VM: beneath /root, or with // before it from the root."},
	{URITemplate: "capsem://vm/{id}/info", Name: "info", Title: "VM", Description: "What is known of a VM.", MIMEType: "application/json"},
	{URITemplate: "capsem://vm/{id}/transcript", Name: "transcript", Title: "Commands of a VM", Description: "The last commands of a VM and their results, from its record, with the beginnings of their outputs where that keeps them. It outlives the VM.", MIMEType: "text/plain"},
	{URITemplate: "capsem://vm/{id}/terminal", Name: "terminal", Title: "Terminal of a VM", Description: "What the terminal of a running VM showed last, if one is open.", MIMEType: "text/plain"},
	{URITemplate: "capsem://vm/{id}/history", Name: "history", Title: "Record of a VM", Description: "The last events of a VM's record.", MIMEType: "application/json"},
	{URITemplate: "capsem://vm/{id}/log/{log}", Name: "log", Title: "Log of a VM", Description: "The log serial (the guest's console) or process (its worker).", MIMEType: "text/plain"},
	{URITemplate: "capsem://output/{output}/{stream}", Name: "output", Title: "Output of a command", Description: "What was kept of an output that was too long for an answer.", MIMEType: "text/plain"},
	{URITemplate: "capsem://image/{name}", Name: "image", Title: "Image", Description: "What is known of an image.", MIMEType: "application/json"},
}

func (s *Server) addResources() {
	s.mcp.AddResource(&mcp.Resource{URI: vmsURI, Name: "vms", Title: "VMs", Description: "All VMs and their states.", MIMEType: "application/json"}, s.readResource)
	s.mcp.AddResource(&mcp.Resource{URI: serviceLogURI, Name: "service log", Title: "Log of the service", MIMEType: "text/plain"}, s.readResource)
	for i := range templates {
		s.mcp.AddResourceTemplate(&templates[i], s.readResource)
	}
}

// readResource answers resources/read.
func (s *Server) readResource(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	uri := req.Params.URI
	svc, err := s.service(ctx)
	if err != nil {
		return nil, &failure{err}
	}
	c, err := s.resource(ctx, svc, uri)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil, mcp.ResourceNotFoundError(uri)
	case err != nil:
		return nil, &failure{err}
	}
	out := &mcp.ResourceContents{URI: uri, MIMEType: c.mime}
	if utf8.Valid(c.data) && bytes.IndexByte(c.data, 0) < 0 {
		out.Text = string(c.data)
	} else {
		out.Blob, out.MIMEType = c.data, "application/octet-stream"
	}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{out}}, nil
}

// place is a resource's URI, taken apart.
type place struct {
	// kind is vm, output, image, vms or service; id the VM, output or image; what the rest.
	kind, id, what string
	// path is that of a file.
	path string
}

// parseURI takes a URI apart.
func parseURI(uri string) (place, error) {
	none := fault.New(fault.NotFound, "there is no resource %.200q", uri)
	rest, ok := strings.CutPrefix(uri, "capsem://")
	if !ok || len(uri) > 16<<10 {
		return place{}, none
	}
	kind, rest, _ := strings.Cut(rest, "/")
	p := place{kind: kind}
	var err error
	switch kind {
	case "vms":
		if rest != "" {
			return place{}, none
		}
		return p, nil
	case "service":
		p.what = rest
		return p, nil
	case "vm", "output", "image":
	default:
		return place{}, none
	}
	id, rest, _ := strings.Cut(rest, "/")
	if p.id, err = url.PathUnescape(id); err != nil || p.id == "" || strings.ContainsAny(p.id, "/\x00") {
		return place{}, none
	}
	p.what = rest
	if file, ok := strings.CutPrefix(rest, "file/"); ok && kind == "vm" {
		if p.path, err = url.PathUnescape(file); err != nil {
			return place{}, none
		}
		p.what = "file"
	}
	return p, nil
}

// resource reads a resource.
func (s *Server) resource(ctx context.Context, svc *client.Client, uri string) (content, error) {
	p, err := parseURI(uri)
	if err != nil {
		return content{}, err
	}
	switch {
	case p.kind == "vms":
		list, err := svc.List(ctx)
		return asJSON(list, err)
	case p.kind == "service" && p.what == "log":
		text, err := readServiceLog(ctx, svc)
		return content{[]byte(text), "text/plain"}, err
	case p.kind == "image" && p.what == "":
		image, err := svc.Image(ctx, p.id)
		return asJSON(image, err)
	case p.kind == "output":
		sp, err := s.outputs.find(p.id, p.what)
		if err != nil {
			return content{}, err
		}
		data, err := sp.part(0, maxResource)
		return content{data[:len(data)-cutRune(data)], "text/plain"}, err
	case p.kind == "vm":
		return vmResource(ctx, svc, p)
	}
	return content{}, fault.New(fault.NotFound, "there is no resource %.200q", uri)
}

func vmResource(ctx context.Context, svc *client.Client, p place) (content, error) {
	switch p.what {
	case "file":
		return readWhole(ctx, svc, p.id, p.path)
	case "info":
		info, err := svc.Info(ctx, p.id)
		return asJSON(info, err)
	case "history":
		page, err := svc.History(ctx, p.id, url.Values{"limit": {"100"}})
		return asJSON(page, err)
	case "log/serial", "log/process":
		logs, err := svc.Logs(ctx, p.id, 0)
		text := logs.SerialLogs
		if p.what == "log/process" {
			text = logs.ProcessLogs
		}
		return content{[]byte(text), "text/plain"}, err
	case "transcript":
		text, err := transcript(ctx, svc, p.id)
		return content{[]byte(text), "text/plain"}, err
	case "terminal":
		text, err := terminal(ctx, svc, p.id)
		return content{text, "text/plain"}, err
	}
	return content{}, fault.New(fault.NotFound, "a VM has no resource %.80q", p.what)
}

func asJSON(v any, err error) (content, error) {
	if err != nil {
		return content{}, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return content{}, fmt.Errorf("encode resource: %w", err)
	}
	return content{text, "application/json"}, nil
}

// readWhole reads a file, or lists a directory.
func readWhole(ctx context.Context, svc *client.Client, id, path string) (content, error) {
	info, err := svc.StatFile(ctx, id, path)
	if err != nil {
		return content{}, err //nolint:wrapcheck // a fault
	}
	if info.Type == "dir" {
		list, err := svc.ListFiles(ctx, id, path, 1)
		return asJSON(list, err)
	}
	if info.Size > maxResource {
		return content{}, fault.New(fault.TooLarge, "%s is %d bytes; a resource has at most %d", path, info.Size, maxResource).
			WithHint("read it in parts with capsem_read_file")
	}
	data, _, err := filePart(ctx, svc, id, path, 0, maxResource)
	return content{data, "text/plain"}, err
}

// transcript is the last commands of a VM and how they went.
func transcript(ctx context.Context, svc *client.Client, id string) (string, error) {
	const last = "SELECT timestamp, command, exit_code, stdout_preview, stderr_preview, stdout_bytes, stderr_bytes FROM exec_events ORDER BY id DESC LIMIT 200"
	reply, err := svc.Inspect(ctx, id, last)
	if err != nil {
		return "", err //nolint:wrapcheck // a fault
	}
	var b strings.Builder
	for _, row := range slices.Backward(reply.Rows) {
		if len(row) != 7 {
			return "", errors.New("the record answers in another shape than asked for")
		}
		fmt.Fprintf(&b, "[%s] $ %s\n", cell(row[0]), cell(row[1]))
		for _, v := range row[3:5] {
			if text := cell(v); text != "" {
				b.WriteString(strings.TrimSuffix(text, "\n") + "\n")
			}
		}
		fmt.Fprintf(&b, "[exit code %s; wrote %s and %s bytes]\n", cell(row[2]), cell(row[5]), cell(row[6]))
	}
	return b.String(), nil
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// listing keeps the list of resources up to date: it is asked for seldom, and never starts the service.
func (s *Server) listing(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		if method == "resources/list" {
			s.relist(ctx)
		}
		return next(ctx, method, req) //nolint:wrapcheck // passed on
	}
}

// relist makes the listed resources those of the VMs there are.
func (s *Server) relist(ctx context.Context) {
	list, err := s.opts.Client.List(ctx)
	if err != nil {
		return // what is listed stays
	}
	want := map[string]*mcp.Resource{}
	for _, vm := range list.Sandboxes[:min(len(list.Sandboxes), maxListed)] {
		for _, r := range resourcesOf(vm) {
			want[r.URI] = r
		}
	}
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	for uri := range s.watch.listed {
		if want[uri] == nil {
			s.mcp.RemoveResources(uri)
			delete(s.watch.listed, uri)
		}
	}
	for uri, r := range want {
		if !s.watch.listed[uri] {
			s.mcp.AddResource(r, s.readResource)
			s.watch.listed[uri] = true
		}
	}
}

func resourcesOf(vm api.SandboxInfo) []*mcp.Resource {
	name := vm.ID
	if vm.Name != "" {
		name = vm.Name
	}
	all := []*mcp.Resource{
		{URI: vmURI(name, "info"), Name: name, Title: "VM " + name, MIMEType: "application/json"},
		{URI: vmURI(name, "log/serial"), Name: name + " console", Title: "Console of " + name, MIMEType: "text/plain"},
		{URI: vmURI(name, "log/process"), Name: name + " worker", Title: "Worker of " + name, MIMEType: "text/plain"},
		{URI: vmURI(name, "transcript"), Name: name + " transcript", Title: "Commands of " + name, MIMEType: "text/plain"},
	}
	if vm.Status == lifecycle.Running {
		all = append(all, &mcp.Resource{URI: vmURI(name, "file/"), Name: name + " files", Title: "/root of " + name})
	}
	return all
}
