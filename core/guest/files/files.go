//go:build linux

// Package files does file operations for the host, each on a stream of its own, beneath the directory that the caller
// names: no symbolic link leads out of it.
package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/guest/frames"
	"capsem/core/guest/layout"
	"capsem/core/proto"
)

// Server does file operations.
type Server struct {
	// Log receives what goes wrong with streams.
	Log *slog.Logger
}

// Serve does the one operation of a stream and closes it. An operation ends early when the host closes the stream or ctx ends.
func (s Server) Serve(ctx context.Context, st io.ReadWriteCloser) {
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() }) // frees whoever waits for the stream
	defer stop()
	var req proto.FileRequest
	if err := proto.ReadFrame(st, proto.MaxFrame, &req); err != nil {
		s.Log.Debug("files: no request", "err", err)
		return
	}
	out := frames.NewWriter(st)
	if err := req.Validate(); err != nil {
		s.finish(st, out, nil, fault.New(fault.Invalid, "%v", err))
		frames.AwaitClose(st)
		return
	}
	if req.Op == proto.FileWriteOp {
		src := frames.NewSource(st)
		info, err := write(&req, src)
		s.finish(st, out, info, err)
		frames.AwaitClose(st)
		return
	}
	// The host sends nothing more: the end of the stream means that it has gone.
	var watch sync.WaitGroup
	watch.Go(func() {
		frames.AwaitClose(st)
		_ = st.Close() // frees a write in progress
	})
	info, err := operate(&req, out)
	s.finish(st, out, info, err)
	watch.Wait()
}

func (s Server) finish(st io.ReadWriteCloser, out *frames.Writer, info *proto.FileInfo, err error) {
	result := proto.FileResult{OK: err == nil, Info: info}
	if err != nil {
		code, message, _ := fault.Public(classify(err))
		result = proto.FileResult{Code: string(code), Message: message}
	}
	if err := out.SendJSON(proto.KindResult, result); err != nil {
		s.Log.Debug("files: cannot report a result", "err", err)
	}
	frames.Leave(st)
}

func operate(req *proto.FileRequest, out *frames.Writer) (*proto.FileInfo, error) {
	root, name, err := open(req)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	switch req.Op {
	case proto.FileRead:
		return read(root, name, out)
	case proto.FileList:
		return nil, list(root, name, max(req.Depth, 1), out)
	case proto.FileStat:
		return stat(root, name)
	case proto.FileSync:
		return nil, syncAll(root)
	case proto.FileDelete:
		return nil, remove(root, name, req.Recursive)
	default: // mkdir: the request is valid and is no write
		return mkdir(root, name, req.Mode)
	}
}

// open opens the directory that bounds the operation and cleans the name beneath it. Beneath "/" nothing is out of bounds,
// so symbolic links on the way are resolved first: the system has absolute ones.
func open(req *proto.FileRequest) (*os.Root, string, error) {
	bound := req.Root
	if bound == "" {
		bound = layout.Home
	}
	name := path.Clean(req.Path)
	if name == "." && req.Op != proto.FileList && req.Op != proto.FileStat && req.Op != proto.FileSync {
		return nil, "", fault.New(fault.Invalid, "name a file, not the whole directory")
	}
	root, err := os.OpenRoot(bound)
	if err != nil {
		return nil, "", fmt.Errorf("open %s: %w", bound, err)
	}
	if bound == "/" {
		name = resolve("/"+name, req.Op)
	}
	return root, name, nil
}

// resolve resolves the symbolic links in an absolute path, as far as it exists, and returns it relative to "/". A link at
// its end is followed only by operations that look through it.
func resolve(name string, op proto.FileOp) string {
	dir, rest := path.Split(name)
	if op == proto.FileRead || op == proto.FileList || op == proto.FileMkdir {
		dir, rest = name, ""
	}
	for {
		dir = path.Clean(dir)
		if found, err := filepath.EvalSymlinks(dir); err == nil {
			return path.Clean("./" + path.Join(found, rest))
		}
		dir, rest = path.Dir(dir), path.Join(path.Base(dir), rest)
	}
}

// syncAll writes out the file system that a directory is on.
func syncAll(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func stat(root *os.Root, name string) (*proto.FileInfo, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	return describe(root, name, info), nil
}

func describe(root *os.Root, name string, info fs.FileInfo) *proto.FileInfo {
	fi := &proto.FileInfo{
		Path: name, Type: "other", Size: info.Size(), Mode: fmt.Sprintf("%04o", info.Mode().Perm()), ModTimeNS: info.ModTime().UnixNano(),
	}
	switch {
	case info.Mode().IsRegular():
		fi.Type = "file"
	case info.IsDir():
		fi.Type = "dir"
	case info.Mode()&fs.ModeSymlink != 0:
		fi.Type = "symlink"
		fi.Target, _ = root.Readlink(name) // it has changed since: no target then
	}
	return fi
}

func read(root *os.Root, name string, out *frames.Writer) (*proto.FileInfo, error) {
	// Without O_NONBLOCK a pipe nobody writes to would hold us up here.
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "%s is not a regular file", name)
	}
	buf := make([]byte, proto.MaxChunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := out.Send(proto.KindData, buf[:n]); err != nil {
				return nil, err //nolint:wrapcheck // the host is gone
			}
		}
		if errors.Is(err, io.EOF) {
			return describe(root, name, info), nil
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // classified by the caller
		}
	}
}

func remove(root *os.Root, name string, recursive bool) error {
	if !recursive {
		return root.Remove(name) //nolint:wrapcheck // classified by the caller
	}
	if _, err := root.Lstat(name); err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}
	return root.RemoveAll(name) //nolint:wrapcheck // classified by the caller
}

func mkdir(root *os.Root, name string, mode uint32) (*proto.FileInfo, error) {
	if mode == 0 {
		mode = 0o755
	}
	if info, err := root.Lstat(name); err == nil && !info.IsDir() {
		return nil, fault.New(fault.Conflict, "%s exists and is not a directory", name)
	}
	if err := root.MkdirAll(name, 0o755); err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	if err := root.Chmod(name, fs.FileMode(mode)); err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	return stat(root, name)
}

func marshalLine(fi *proto.FileInfo) ([]byte, error) {
	line, err := json.Marshal(fi)
	if err != nil {
		return nil, fmt.Errorf("encode file: %w", err)
	}
	return append(line, '\n'), nil
}
