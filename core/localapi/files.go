package localapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

// fileRequest is a request about a path of the API: beneath /root, or absolute.
func fileRequest(op proto.FileOp, name string) (*proto.FileRequest, error) {
	req := &proto.FileRequest{Op: op, Path: name}
	if path.IsAbs(name) {
		req.Root, req.Path = "/", strings.TrimLeft(name, "/")
	}
	req.Path = strings.TrimRight(req.Path, "/")
	return req, valid(req)
}

func valid(req *proto.FileRequest) error {
	if err := req.Validate(); err != nil {
		return fault.New(fault.Invalid, "%s", err)
	}
	return nil
}

// query makes a request of the URL's path and mode.
func query(r *http.Request, op proto.FileOp) (*proto.FileRequest, error) {
	req, err := fileRequest(op, r.URL.Query().Get("path"))
	if err != nil {
		return nil, err
	}
	if mode := r.URL.Query().Get("mode"); mode != "" {
		n, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || n > 0o777 {
			return nil, fault.New(fault.Invalid, "mode is %.40q; it must be permission bits in octal, such as 644", mode)
		}
		req.Mode = uint32(n)
	}
	return req, nil
}

// simple does a file operation that has a result and no content.
func (s *Server) simple(ctx context.Context, id string, req *proto.FileRequest) (*proto.FileInfo, error) {
	t, err := s.openTransfer(ctx, id, req)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if _, err := io.Copy(io.Discard, t); err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	return t.info, nil
}

func (s *Server) statFile(w http.ResponseWriter, r *http.Request) error {
	req, err := query(r, proto.FileStat)
	if err != nil {
		return err
	}
	info, err := s.simple(r.Context(), r.PathValue("id"), req)
	if err == nil && info == nil {
		err = fault.New(fault.Internal, "the guest did not describe the file")
	}
	return answer(w, info, err)
}

func (s *Server) deleteFile(w http.ResponseWriter, r *http.Request) error {
	req, err := query(r, proto.FileDelete)
	if err != nil {
		return err
	}
	if req.Recursive, err = boolean(r, "recursive"); err != nil {
		return err
	}
	info, err := s.simple(r.Context(), r.PathValue("id"), req)
	return answer(w, api.FileReply{Success: true, Info: info}, err)
}

func (s *Server) mkdir(w http.ResponseWriter, r *http.Request) error {
	req, err := query(r, proto.FileMkdir)
	if err != nil {
		return err
	}
	info, err := s.simple(r.Context(), r.PathValue("id"), req)
	return answer(w, api.FileReply{Success: true, Info: info}, err)
}

func (s *Server) readFile(w http.ResponseWriter, r *http.Request) error {
	req, err := query(r, proto.FileRead)
	if err != nil {
		return err
	}
	t, err := s.openTransfer(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	defer t.close()
	// The first bytes, or the end, tell whether there is a file at all: only then the answer begins.
	if err := t.next(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	w.Header().Set("Content-Type", raw)
	w.WriteHeader(http.StatusOK)
	_, err = io.Copy(struct{ io.Writer }{w}, t)
	return err //nolint:wrapcheck // the answer is broken off
}

func (s *Server) writeFile(w http.ResponseWriter, r *http.Request) error {
	req, err := query(r, proto.FileWriteOp)
	if err != nil {
		return err
	}
	ctx, stop := leaving(r)
	defer stop()
	info, sent, err := s.upload(ctx, r.PathValue("id"), req, r.Body)
	if err == nil {
		return answer(w, api.FileReply{Success: true, Info: info}, nil)
	}
	// A guest that refuses in the middle is heard at once, and the client then has a moment to stop sending: were the connection
	// closed on what it still sends, it might lose the answer.
	rc := http.NewResponseController(w)
	w.Header().Set("Connection", "close")
	s.refuse(w, r, err)
	if rc.Flush() == nil && rc.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, r.Body) // the client is free to leave
	}
	<-sent //nolint:errcheck // it was looked at
	return nil
}

// lingerTime is how long a client that is refused may go on sending.
const lingerTime = 5 * time.Second

// upload writes a file from a reader. It returns as soon as the guest refuses; the reader is done with when the channel is closed.
func (s *Server) upload(ctx context.Context, id string, req *proto.FileRequest, body io.Reader) (*proto.FileInfo, <-chan error, error) {
	sent := make(chan error, 1)
	t, err := s.openTransfer(ctx, id, req)
	if err != nil {
		close(sent)
		return nil, sent, err
	}
	defer t.close()
	go func() {
		defer close(sent)
		err := t.send(body)
		sent <- err
		if _, broke := errors.AsType[*bodyError](err); broke {
			t.close() // without the end of the content, the guest keeps the file as it was
		}
	}()
	_, err = io.Copy(io.Discard, t)
	select {
	case sending := <-sent:
		if failed, ok := errors.AsType[*bodyError](sending); ok {
			return nil, sent, fault.Wrap(failed.err, fault.Invalid, "the content broke off").WithHint("the file is as it was")
		}
	default:
	}
	return t.info, sent, err //nolint:wrapcheck // a fault
}

func (s *Server) readText(w http.ResponseWriter, r *http.Request) error {
	var in api.FilePath
	if err := decode(w, r, api.MaxBody, &in); err != nil {
		return err
	}
	req, err := fileRequest(proto.FileRead, in.Path)
	if err != nil {
		return err
	}
	t, err := s.openTransfer(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	defer t.close()
	data, err := io.ReadAll(io.LimitReader(t, api.MaxTextFile+1))
	switch {
	case err != nil:
		return err //nolint:wrapcheck // a fault
	case len(data) > api.MaxTextFile:
		return fault.New(fault.TooLarge, "%s is larger than %d MB", in.Path, api.MaxTextFile>>20).WithHint("read it through /files/{id}/content")
	case !utf8.Valid(data):
		return fault.New(fault.Invalid, "%s is not text", in.Path).WithHint("read it through /files/{id}/content")
	}
	return answer(w, api.FileText{Path: in.Path, Content: string(data)}, nil)
}

func (s *Server) writeText(w http.ResponseWriter, r *http.Request) error {
	var in api.FileText
	// Text may take six times its length as JSON.
	if err := decode(w, r, 6*api.MaxTextFile+api.MaxBody, &in); err != nil {
		return err
	}
	if len(in.Content) > api.MaxTextFile {
		return fault.New(fault.TooLarge, "the content is larger than %d MB", api.MaxTextFile>>20).WithHint("write it through /files/{id}/content")
	}
	req, err := fileRequest(proto.FileWriteOp, in.Path)
	if err != nil {
		return err
	}
	_, _, err = s.upload(r.Context(), r.PathValue("id"), req, strings.NewReader(in.Content))
	return answer(w, api.Success{Success: true}, err)
}

func (s *Server) listFiles(w http.ResponseWriter, r *http.Request) error {
	req, err := fileRequest(proto.FileList, r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	if req.Depth, err = number(r, "depth", 1, 6); err != nil {
		return err
	}
	t, err := s.openTransfer(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	defer t.close()
	files, err := readList(t)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	return answer(w, api.FilesReply{Files: files}, nil)
}
