//go:build linux

package files

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/guest/guesttest"
	"capsem/core/proto"
)

// A process of the guest swaps a directory for a link to the outside, again and again, while the host reads and writes.
func TestASwappedSymlinkNeverLeadsOut(t *testing.T) {
	t.Parallel()
	host, outside, dir := server(t), t.TempDir(), t.TempDir()
	mustPut(t, filepath.Join(outside, "f"), "secret")
	inside, trap := filepath.Join(dir, "d"), filepath.Join(dir, "trap")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	mustPut(t, filepath.Join(inside, "f"), "public")
	mustLink(t, outside, trap)
	ctx, stop := context.WithCancel(t.Context())
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, inside, unix.AT_FDCWD, trap, unix.RENAME_EXCHANGE)
		}
	})
	for range 200 {
		if got := ask(t, host, proto.FileRequest{Op: proto.FileRead, Root: dir, Path: "d/f"}); strings.Contains(got.Data, "secret") {
			t.Error("read a file outside")
		}
		ask(t, host, proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: "d/f", Parents: true}, "public")
	}
	stop()
	swapper.Wait()
	if got := content(t, filepath.Join(outside, "f")); got != "secret" {
		t.Errorf("a file outside became %q", got)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

func TestAnAbandonedWriteChangesNothing(t *testing.T) {
	t.Parallel()
	host, dir := server(t), t.TempDir()
	mustPut(t, filepath.Join(dir, "f"), "before")
	st := guesttest.Open(t, host, proto.PortAgentFiles, &proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: "f"})
	guesttest.Send(t, st, proto.KindData, "half of the new conte")
	guesttest.Eventually(t, "the write has begun", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 2
	})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	guesttest.Eventually(t, "the temporary file is gone", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 1
	})
	if got := content(t, filepath.Join(dir, "f")); got != "before" {
		t.Errorf("the file became %q", got)
	}
}

func TestWritingThroughALinkInsideReplacesItsTarget(t *testing.T) {
	t.Parallel()
	host, dir := server(t), t.TempDir()
	mustPut(t, filepath.Join(dir, "real"), "old")
	mustLink(t, "real", filepath.Join(dir, "near"))
	mustLink(t, filepath.Join(dir, "real"), filepath.Join(dir, "far"))
	mustLink(t, "loop", filepath.Join(dir, "loop"))
	for _, name := range []string{"near", "far"} {
		if got := ask(t, host, proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: name}, "by "+name); !got.Result.OK {
			t.Fatalf("%s: %+v", name, got.Result)
		}
		if got := content(t, filepath.Join(dir, "real")); got != "by "+name {
			t.Errorf("%s: the target holds %q", name, got)
		}
	}
	if got := ask(t, host, proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: "loop"}, "x"); got.Result.OK {
		t.Error("wrote through a link to itself")
	}
}

// pipe is a stream whose other side has sent all it will.
type pipe struct {
	io.Reader
	out bytes.Buffer
}

func (p *pipe) Write(b []byte) (int, error) { return p.out.Write(b) }
func (*pipe) Close() error                  { return nil }

func FuzzServe(f *testing.F) {
	for _, req := range []proto.FileRequest{
		{Op: proto.FileRead, Path: "a"},
		{Op: proto.FileWriteOp, Path: "b/c", Parents: true, Mode: 0o600},
		{Op: proto.FileList, Depth: 6},
		{Op: proto.FileDelete, Path: "a", Recursive: true},
		{Op: proto.FileMkdir, Path: "x"},
	} {
		f.Add(string(req.Op), req.Path, req.Mode, req.Depth, []byte("\x07\x00\x00\x00\x01x\x07\x00\x00\x00\x00"))
	}
	f.Fuzz(func(t *testing.T, op, path string, mode uint32, depth int, frames []byte) {
		top := t.TempDir()
		dir := filepath.Join(top, "root")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		mustPut(t, filepath.Join(top, "secret"), "secret")
		mustLink(t, "../secret", filepath.Join(dir, "a"))
		var in bytes.Buffer
		req := proto.FileRequest{Op: proto.FileOp(op), Root: dir, Path: path, Mode: mode, Depth: depth, Parents: true, Recursive: true}
		if err := proto.WriteFrame(&in, &req); err != nil {
			return
		}
		in.Write(frames)
		p := &pipe{Reader: &in}
		Server{Log: guesttest.Log()}.Serve(t.Context(), p)
		if bytes.Contains(p.out.Bytes(), []byte("secret\x08")) || content(t, filepath.Join(top, "secret")) != "secret" {
			t.Errorf("%s %q reached outside", op, path)
		}
		if entries, err := os.ReadDir(top); err != nil || len(entries) != 2 {
			t.Errorf("%s %q left %v outside (%v)", op, path, entries, err)
		}
	})
}
