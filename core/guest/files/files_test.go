//go:build linux

package files

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

func server(t testing.TB) (host link.Session) {
	t.Helper()
	host, guest := guesttest.Sessions(t)
	s := Server{Log: guesttest.Log()}
	guesttest.Serve(t, guest, proto.PortAgentFiles, func(ctx context.Context, st link.Stream) { s.Serve(ctx, st) })
	return host
}

// ask does one operation; content, when there is any, is sent in frames and ended.
func ask(t testing.TB, host link.Session, req proto.FileRequest, content ...string) guesttest.Output {
	t.Helper()
	st := guesttest.Open(t, host, proto.PortAgentFiles, &req)
	if req.Op == proto.FileWriteOp {
		for _, part := range append(content, "") {
			guesttest.Send(t, st, proto.KindData, part)
		}
	}
	return guesttest.Collect(t, st)
}

func mustPut(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustLink(t testing.TB, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAFileComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	host, dir := server(t), t.TempDir()
	large := strings.Repeat("0123456789abcdef\x00\xff", 200_000) // 3.6 MB, not text
	for name, c := range map[string]struct {
		parts []string
		mode  uint32
		want  string
	}{
		"empty": {nil, 0, "0644"}, "small": {[]string{"x"}, 0o600, "0600"}, "script": {[]string{"#!/bin/sh\n", "exit 3\n"}, 0o755, "0755"},
		"large": {chunks(large), 0o400, "0400"},
	} {
		path := "deep/down/" + name
		w := ask(t, host, proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: path, Mode: c.mode, Parents: true}, c.parts...)
		if !w.Result.OK || w.Result.Info.Mode != c.want {
			t.Fatalf("%s: write ended with %+v", name, w.Result)
		}
		want := strings.Join(c.parts, "")
		r := ask(t, host, proto.FileRequest{Op: proto.FileRead, Root: dir, Path: path})
		if !r.Result.OK || r.Data != want || r.Result.Info.Size != int64(len(want)) {
			t.Errorf("%s: read %d bytes of %d, %+v", name, len(r.Data), len(want), r.Result)
		}
	}
}

func chunks(s string) (parts []string) {
	for len(s) > proto.MaxChunk {
		parts, s = append(parts, s[:proto.MaxChunk]), s[proto.MaxChunk:]
	}
	return append(parts, s)
}

func TestNothingLeadsOutOfTheRoot(t *testing.T) {
	t.Parallel()
	host, outside, dir := server(t), t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	mustPut(t, secret, "secret")
	mustLink(t, secret, filepath.Join(dir, "absolute"))
	mustLink(t, "../"+filepath.Base(outside)+"/secret", filepath.Join(dir, "relative"))
	mustLink(t, outside, filepath.Join(dir, "way"))
	for _, path := range []string{"absolute", "relative", "way/secret", "way/new"} {
		for _, op := range []proto.FileOp{proto.FileRead, proto.FileWriteOp, proto.FileMkdir, proto.FileList} {
			got := ask(t, host, proto.FileRequest{Op: op, Root: dir, Path: path, Parents: true}, "owned")
			if got.Result.OK || strings.Contains(got.Data, "secret") {
				t.Errorf("%s %s: %+v %q", op, path, got.Result, got.Data)
			}
		}
	}
	for _, path := range []string{"way/secret", "absolute", "way"} {
		ask(t, host, proto.FileRequest{Op: proto.FileDelete, Root: dir, Path: path, Recursive: true})
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 || content(t, secret) != "secret" {
		t.Errorf("outside has changed: %v, %v", entries, err)
	}
}

func TestHostileNamesAreRefused(t *testing.T) {
	t.Parallel()
	host, dir := server(t), t.TempDir()
	mustPut(t, filepath.Join(dir, "plain"), "text")
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		req  proto.FileRequest
		code fault.Code
	}{
		"parent":        {proto.FileRequest{Op: proto.FileRead, Root: dir, Path: "a/../../etc/passwd"}, fault.Invalid},
		"absolute":      {proto.FileRequest{Op: proto.FileRead, Root: dir, Path: "/etc/passwd"}, fault.Invalid},
		"NUL":           {proto.FileRequest{Op: proto.FileRead, Root: dir, Path: "a\x00b"}, fault.Invalid},
		"dirty root":    {proto.FileRequest{Op: proto.FileRead, Root: dir + "/../x", Path: "a"}, fault.Invalid},
		"relative root": {proto.FileRequest{Op: proto.FileRead, Root: "etc", Path: "passwd"}, fault.Invalid},
		"setuid":        {proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: "a", Mode: 0o4755}, fault.Invalid},
		"operation":     {proto.FileRequest{Op: "chown", Root: dir, Path: "plain"}, fault.Invalid},
		"whole root":    {proto.FileRequest{Op: proto.FileDelete, Root: dir, Path: ".", Recursive: true}, fault.Invalid},
		"long path":     {proto.FileRequest{Op: proto.FileRead, Root: dir, Path: strings.Repeat("a/", 4000)}, fault.Invalid},
		"long name":     {proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: strings.Repeat("a", 300)}, fault.Invalid},
		"no such file":  {proto.FileRequest{Op: proto.FileRead, Root: dir, Path: "none"}, fault.NotFound},
		"no such root":  {proto.FileRequest{Op: proto.FileRead, Root: dir + "/none", Path: "none"}, fault.NotFound},
		"pipe read":     {proto.FileRequest{Op: proto.FileRead, Root: dir, Path: "pipe"}, fault.Invalid},
		"pipe written":  {proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: "pipe"}, fault.Conflict},
		"below a file":  {proto.FileRequest{Op: proto.FileWriteOp, Root: dir, Path: "plain/a", Parents: true}, fault.Invalid},
		"mkdir on file": {proto.FileRequest{Op: proto.FileMkdir, Root: dir, Path: "plain"}, fault.Conflict},
		"list a file":   {proto.FileRequest{Op: proto.FileList, Root: dir, Path: "plain"}, fault.Invalid},
	} {
		got := ask(t, host, c.req, "text")
		if got.Result.OK || got.Result.Code != string(c.code) || got.Result.Message == "" {
			t.Errorf("%s: %+v, want code %s", name, got.Result, c.code)
		}
	}
}

func listed(t *testing.T, o guesttest.Output) (infos []proto.FileInfo) {
	t.Helper()
	for line := range strings.Lines(o.Data) {
		var fi proto.FileInfo
		if err := json.Unmarshal([]byte(line), &fi); err != nil {
			t.Fatal(err)
		}
		infos = append(infos, fi)
	}
	return infos
}

func TestListStatAndDelete(t *testing.T) {
	t.Parallel()
	host, dir := server(t), t.TempDir()
	odd := "b\nnew line, \"quotes\""
	mustPut(t, filepath.Join(dir, odd), "12345")
	mustLink(t, "/etc/passwd", filepath.Join(dir, "c"))
	if got := ask(t, host, proto.FileRequest{Op: proto.FileMkdir, Root: dir, Path: "a/sub", Mode: 0o700}); !got.Result.OK {
		t.Fatal(got.Result)
	}
	got := listed(t, ask(t, host, proto.FileRequest{Op: proto.FileList, Root: dir, Depth: 2}))
	if len(got) != 4 || got[0].Path != "a" || got[1].Path != "a/sub" || got[1].Mode != "0700" || got[2].Path != odd || got[2].Size != 5 ||
		got[3].Type != "symlink" || got[3].Target != "/etc/passwd" {
		t.Errorf("listed %+v", got)
	}
	if st := ask(t, host, proto.FileRequest{Op: proto.FileStat, Root: dir, Path: "c"}); !st.Result.OK || st.Result.Info.Type != "symlink" {
		t.Errorf("stat of a link: %+v", st.Result)
	}
	if d := ask(t, host, proto.FileRequest{Op: proto.FileDelete, Root: dir, Path: "a"}); d.Result.Code != string(fault.Conflict) {
		t.Errorf("deleting a full directory: %+v", d.Result)
	}
	for _, path := range []string{"a", "c", odd} {
		if d := ask(t, host, proto.FileRequest{Op: proto.FileDelete, Root: dir, Path: path, Recursive: true}); !d.Result.OK {
			t.Errorf("delete %s: %+v", path, d.Result)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
