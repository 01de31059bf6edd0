//go:build vm

package vmtest

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/proto"
)

// run runs a command to its end.
func (v *vm) run(ctx context.Context, t *testing.T, req *proto.ExecRequest) guesttest.Output {
	t.Helper()
	st, err := v.Exec(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	return guesttest.Collect(t, st)
}

// shell runs a line of bash that must end well and returns what it printed.
func (v *vm) shell(ctx context.Context, t *testing.T, line string) string {
	t.Helper()
	got := v.run(ctx, t, &proto.ExecRequest{Command: line})
	if got.Exit.Code != 0 {
		t.Fatalf("%s: %+v, %q", line, *got.Exit, got.Stderr)
	}
	return got.Stdout
}

// file does a file operation without content.
func (v *vm) file(ctx context.Context, t *testing.T, req *proto.FileRequest) guesttest.Output {
	t.Helper()
	st, err := v.File(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	return guesttest.Collect(t, st)
}

// put writes a file.
func (v *vm) put(ctx context.Context, t *testing.T, req *proto.FileRequest, from io.Reader) *proto.FileResult {
	t.Helper()
	req.Op = proto.FileWriteOp
	st, err := v.File(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for buf, err := make([]byte, proto.MaxChunk), error(nil); err == nil; {
		var n int
		if n, err = from.Read(buf); n > 0 {
			guesttest.Send(t, st, proto.KindData, string(buf[:n]))
		}
	}
	guesttest.Send(t, st, proto.KindData, "")
	return guesttest.Collect(t, st).Result
}

// program copies a program of the host into the guest.
func (v *vm) program(ctx context.Context, t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r := v.put(ctx, t, &proto.FileRequest{Root: "/", Path: strings.TrimPrefix(to, "/"), Mode: 0o755}, f); !r.OK {
		t.Fatal(*r)
	}
}
