package localapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"capsem/core/fault"
	"capsem/core/proto"
)

const (
	// maxList bounds the list of files of one answer, in bytes of the guest's own text.
	maxList = 16 << 20
	// maxListed bounds it in files.
	maxListed = 100_000
)

// transfer is one file operation in a VM. As a reader it is the content; its error is why the guest could not do it.
type transfer struct {
	conn   net.Conn
	frames *proto.StreamReader
	rest   []byte
	end    error
	// info is what the guest says of the file, once the end has been read; may be nil.
	info *proto.FileInfo
	stop func() bool
	ctx  context.Context //nolint:containedctx // of the request this transfer belongs to
}

// openTransfer starts a file operation. It ends with ctx.
func (s *Server) openTransfer(ctx context.Context, id string, req *proto.FileRequest) (*transfer, error) {
	conn, err := s.svc.Stream(ctx, id, proto.WorkerRequest{Op: proto.OpFile, File: req})
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return &transfer{conn: conn, frames: proto.NewStreamReader(conn), stop: stop, ctx: ctx}, nil
}

func (t *transfer) close() {
	t.stop()
	_ = t.conn.Close() // may be closed already
}

// Read returns the content, then io.EOF when the guest has said that it was all.
func (t *transfer) Read(p []byte) (int, error) {
	if err := t.next(); err != nil {
		return 0, err
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// next makes sure that there is something to read, or returns why there is not.
func (t *transfer) next() error {
	for len(t.rest) == 0 && t.end == nil {
		t.rest, t.end = t.frame()
	}
	if len(t.rest) > 0 {
		return nil
	}
	return t.end
}

func (t *transfer) frame() ([]byte, error) {
	kind, data, err := t.frames.Next()
	if err != nil {
		if t.ctx.Err() != nil {
			return nil, t.ctx.Err() //nolint:wrapcheck // of the request
		}
		return nil, lost(err)
	}
	switch kind {
	case proto.KindData:
		return data, nil
	case proto.KindResult:
		return nil, t.result(data)
	case proto.KindError:
		return nil, streamFault(data)
	default:
		return nil, fault.New(fault.Internal, "the VM's worker sent a frame of kind %d", kind)
	}
}

func (t *transfer) result(data []byte) error {
	var res proto.FileResult
	if err := json.Unmarshal(data, &res); err != nil {
		return fmt.Errorf("decode result of file operation: %w", err)
	}
	if !res.OK {
		data, err := json.Marshal(proto.StreamError{Code: cmp.Or(res.Code, string(fault.Internal)), Message: res.Message})
		if err != nil {
			return fmt.Errorf("encode error: %w", err)
		}
		return streamFault(data)
	}
	t.info = res.Info
	return io.EOF
}

// bodyError is a failure to read what is to be sent.
type bodyError struct{ err error }

// Error says what failed.
func (e *bodyError) Error() string { return "read content: " + e.err.Error() }

// send sends content and its end.
func (t *transfer) send(body io.Reader) error {
	buf := make([]byte, proto.MaxChunk)
	for {
		n, err := io.ReadFull(body, buf)
		if n > 0 {
			if err := proto.WriteStreamFrame(t.conn, proto.KindData, buf[:n]); err != nil {
				return err //nolint:wrapcheck // only whether the body failed matters
			}
		}
		if errors.Is(err, io.EOF) || (errors.Is(err, io.ErrUnexpectedEOF) && atEnd(body)) {
			return proto.WriteStreamFrame(t.conn, proto.KindData, nil) //nolint:wrapcheck // as above
		}
		if err != nil {
			return &bodyError{err}
		}
	}
}

// atEnd tells a last piece shorter than the buffer from content that broke off: net/http says io.ErrUnexpectedEOF for that too.
func atEnd(body io.Reader) bool {
	var one [1]byte
	n, err := body.Read(one[:])
	return n == 0 && err == io.EOF
}

// readList reads JSON lines, one file each, and sorts directories first.
func readList(r io.Reader) ([]proto.FileInfo, error) {
	files := []proto.FileInfo{}
	limited := &io.LimitedReader{R: r, N: maxList}
	d := json.NewDecoder(limited)
	for {
		var f proto.FileInfo
		err := d.Decode(&f)
		if errors.Is(err, io.EOF) && limited.N > 0 {
			break
		}
		if limited.N <= 0 || len(files) >= maxListed {
			return nil, fault.New(fault.TooLarge, "the list is too long").WithHint("list a directory further down, or with less depth")
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // the caller does
		}
		files = append(files, f)
	}
	slices.SortStableFunc(files, func(a, b proto.FileInfo) int {
		if c := cmp.Compare(rank(a), rank(b)); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	return files, nil
}

func rank(f proto.FileInfo) int {
	if f.Type == "dir" {
		return 0
	}
	return 1
}
