package servicetest

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"

	"capsem/core/proto"
)

// file does file operations in the VM's workspace, wherever the request's root is.
func (w *worker) file(conn net.Conn, req proto.WorkerRequest) {
	root, err := os.OpenRoot(w.dir.Workspace())
	if err != nil {
		result(conn, nil, err)
		return
	}
	defer root.Close()
	f, name := req.File, path.Join(".", strings.TrimPrefix(req.File.Root, "/"), req.File.Path)
	switch f.Op {
	case proto.FileRead:
		err = w.read(conn, root, name)
	case proto.FileWriteOp:
		err = write(conn, root, name)
	case proto.FileList:
		err = fs.WalkDir(root.FS(), name, func(p string, d fs.DirEntry, err error) error {
			if err == nil && p != name {
				err = proto.WriteStreamFrame(conn, proto.KindData, append(encode(describe(p, d.IsDir(), 0)), '\n'))
			}
			return err
		})
	case proto.FileDelete:
		err = root.Remove(name)
		if f.Recursive {
			err = root.RemoveAll(name)
		}
	case proto.FileMkdir:
		err = root.MkdirAll(name, 0o755)
	}
	if f.Op == proto.FileDelete || f.Op == proto.FileList || err != nil {
		result(conn, nil, err)
		return
	}
	info, err := root.Stat(name)
	if err != nil {
		result(conn, nil, err)
		return
	}
	d := describe(f.Path, info.IsDir(), info.Size())
	result(conn, &d, nil)
}

func describe(p string, dir bool, size int64) proto.FileInfo {
	kind := "file"
	if dir {
		kind = "dir"
	}
	return proto.FileInfo{Path: p, Type: kind, Size: size, Mode: "0644"}
}

func (w *worker) read(conn net.Conn, root *os.Root, name string) error {
	in, err := root.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	buf := make([]byte, proto.MaxChunk)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if err := proto.WriteStreamFrame(conn, proto.KindData, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if strings.HasSuffix(name, "torn") { // a guest that dies in the middle
		die()
	}
	return proto.WriteStreamFrame(conn, proto.KindData, nil)
}

func write(conn net.Conn, root *os.Root, name string) error {
	if strings.HasSuffix(name, "full") {
		return errors.New("no space left on device")
	}
	out, err := root.Create(name + ".part")
	if err != nil {
		return err
	}
	defer out.Close()
	frames := proto.NewStreamReader(conn)
	for {
		kind, data, err := frames.Next()
		if err != nil || kind != proto.KindData {
			return errors.Join(errors.New("the content broke off"), root.Remove(name+".part"))
		}
		if len(data) == 0 {
			return root.Rename(name+".part", name)
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
}

func result(conn net.Conn, info *proto.FileInfo, err error) {
	res := proto.FileResult{OK: err == nil, Info: info}
	if err != nil {
		res.Code, res.Message = "internal", err.Error()
	}
	if errors.Is(err, fs.ErrNotExist) {
		res.Code = "not_found"
	}
	_ = proto.WriteStreamFrame(conn, proto.KindResult, encode(res))
}
