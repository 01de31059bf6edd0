package mcptools

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/proto"
)

type readFileParams struct {
	ID       string `json:"id" jsonschema:"the VM's name or id"`
	Path     string `json:"path" jsonschema:"the file, beneath /root unless absolute"`
	Offset   int64  `json:"offset,omitempty" jsonschema:"where to begin, in bytes"`
	Limit    int    `json:"limit,omitempty" jsonschema:"how many bytes at most"`
	Encoding string `json:"encoding,omitempty" jsonschema:"base64 for any bytes; what is no text is base64 in any case"`
}

type writeFileParams struct {
	ID       string `json:"id" jsonschema:"the VM's name or id"`
	Path     string `json:"path" jsonschema:"the file, beneath /root unless absolute; what it is replaced"`
	Content  string `json:"content" jsonschema:"all of its content"`
	Encoding string `json:"encoding,omitempty" jsonschema:"utf-8, or base64 for any bytes"`
	Mode     string `json:"mode,omitempty" jsonschema:"its permissions in octal; 644 otherwise"`
}

type listFilesParams struct {
	ID    string `json:"id" jsonschema:"the VM's name or id"`
	Path  string `json:"path,omitempty" jsonschema:"the directory, beneath /root unless absolute"`
	Depth int    `json:"depth,omitempty" jsonschema:"how many levels down, 1 to 6"`
}

// written is a file that was written.
type written struct {
	Success bool            `json:"success"`
	Info    *proto.FileInfo `json:"info,omitempty"`
}

func (s *Server) addFiles() {
	add(s, tool{
		name: "capsem_read_file", title: "Read a file of a VM", does: reads, defaults: map[string]any{"limit": defaultPart},
		about: "Reads a file of a VM, a part at a time when it is long: go on from next_offset.",
	}, s.readFile)
	add(s, tool{
		name: "capsem_write_file", title: "Write a file of a VM", does: keeps,
		about: "Writes a file of a VM, all of it, as root. Missing directories are made.",
	}, s.writeFile)
	add(s, tool{
		name: "capsem_list_files", title: "List files of a VM", does: reads, defaults: map[string]any{"depth": 1},
		about: "Lists a directory of a VM.",
	}, func(ctx context.Context, c *call, in listFilesParams) (api.FilesReply, error) {
		return c.svc.ListFiles(ctx, in.ID, in.Path, in.Depth)
	})
}

func (s *Server) readFile(ctx context.Context, c *call, in readFileParams) (part, error) {
	limit, err := checkPart(in.Offset, in.Limit)
	if err != nil {
		return part{}, err
	}
	if in.Encoding != "" && in.Encoding != "utf-8" && in.Encoding != "base64" {
		return part{}, fault.New(fault.Invalid, "encoding is %.20q; it must be utf-8 or base64", in.Encoding)
	}
	data, size, err := filePart(ctx, c.svc, in.ID, in.Path, in.Offset, limit)
	if err != nil {
		return part{}, err
	}
	p := partOf(data, in.Offset, size, in.Encoding)
	if p.Next > 0 {
		c.link(fileURI(in.ID, in.Path), in.Path, "the whole file")
	}
	return p, nil
}

// filePart reads a part of a file, and says how long the file is.
func filePart(ctx context.Context, svc *client.Client, id, path string, offset int64, limit int) ([]byte, int64, error) {
	info, err := svc.StatFile(ctx, id, path)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // a fault
	}
	if info.Type == "dir" {
		return nil, 0, fault.New(fault.Invalid, "%s is a directory", path).WithHint("capsem_list_files lists it")
	}
	body, err := svc.ReadFile(ctx, id, path)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // a fault
	}
	defer body.Close()
	if _, err := io.CopyN(io.Discard, body, offset); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, info.Size, nil
		}
		return nil, 0, fmt.Errorf("read file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(body, int64(limit)))
	if err != nil {
		return nil, 0, fmt.Errorf("read file: %w", err)
	}
	return data, max(info.Size, offset+int64(len(data))), nil // a file in /proc has no size
}

func (s *Server) writeFile(ctx context.Context, c *call, in writeFileParams) (written, error) {
	content := in.Content
	switch in.Encoding {
	case "", "utf-8":
	case "base64":
		data, err := base64.StdEncoding.DecodeString(in.Content)
		if err != nil {
			return written{}, fault.New(fault.Invalid, "the content is not base64: %s", err)
		}
		content = string(data)
	default:
		return written{}, fault.New(fault.Invalid, "encoding is %.20q; it must be utf-8 or base64", in.Encoding)
	}
	var mode uint64
	if in.Mode != "" {
		var err error
		if mode, err = strconv.ParseUint(in.Mode, 8, 32); err != nil || mode > 0o777 {
			return written{}, fault.New(fault.Invalid, "mode is %.20q; it must be octal, such as 755", in.Mode)
		}
	}
	reply, err := c.svc.WriteFile(ctx, in.ID, in.Path, uint32(mode), strings.NewReader(content))
	if dir := path.Dir(in.Path); fault.Is(err, fault.NotFound) && dir != "." && dir != "/" {
		if _, failed := c.svc.Mkdir(ctx, in.ID, dir, 0o755); failed != nil { // it may also be the VM that is not there
			return written{}, err
		}
		reply, err = c.svc.WriteFile(ctx, in.ID, in.Path, uint32(mode), strings.NewReader(content))
	}
	return written{reply.Success, reply.Info}, err
}

// fileURI is the resource of a file.
func fileURI(id, path string) string {
	u := url.URL{Path: strings.TrimPrefix(path, "/root/")}
	if strings.HasPrefix(u.Path, "/") { // the path of a template's {+path} would lose one slash
		u.Path = "/" + strings.TrimLeft(u.Path, "/")
	}
	return "capsem://vm/" + url.PathEscape(id) + "/file/" + u.EscapedPath()
}
