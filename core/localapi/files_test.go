package localapi_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/safesocket"
)

func dialRaw(t *testing.T, s *served) net.Conn {
	t.Helper()
	conn, err := safesocket.Dial(t.Context(), s.home.ServiceSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestFilesOfAnySizeGoBothWays(t *testing.T) {
	s := serve(t)
	id := s.vm()
	for name, size := range map[string]int{"empty": 0, "one": 1, "chunk": 64 << 10, "odd": 64<<10 + 1, "big": 20<<20 + 7} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(rand.Uint32())
		}
		got, err := s.WriteFile(t.Context(), id, "/dir/../"+name, 0, bytes.NewReader(content))
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: a path upwards: %+v, %v", name, got, err)
		}
		if got, err = s.WriteFile(t.Context(), id, name, 0o644, bytes.NewReader(content)); err != nil || got.Info == nil || got.Info.Size != int64(size) {
			t.Errorf("%s: wrote %+v, %v", name, got, err)
		}
		r, err := s.ReadFile(t.Context(), id, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back, err := io.ReadAll(r)
		if err != nil || sha256.Sum256(back) != sha256.Sum256(content) {
			t.Errorf("%s: %d bytes came back, %v", name, len(back), err)
		}
		_ = r.Close()
		if info, err := s.StatFile(t.Context(), id, name); err != nil || info.Size != int64(size) || info.Path != name {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func TestAFileThatBreaksOffIsNotTakenForAWholeOne(t *testing.T) {
	s := serve(t)
	id := s.vm()
	if _, err := s.WriteFile(t.Context(), id, "kept", 0, strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	broken := io.MultiReader(strings.NewReader(strings.Repeat("x", 200<<10)), failing{})
	if _, err := s.WriteFile(t.Context(), id, "kept", 0, broken); err == nil {
		t.Error("writing half a file succeeds")
	}
	await(t, "the file as it was", func() bool {
		r, err := s.ReadFile(t.Context(), id, "kept")
		if err != nil {
			return false
		}
		defer r.Close()
		text, err := io.ReadAll(r)
		return err == nil && string(text) == "old"
	})
	// A guest that refuses in the middle is heard at once, however much is still to come.
	if _, err := s.WriteFile(t.Context(), id, "full", 0, io.LimitReader(endless{}, 1<<30)); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a refused file: %v", err)
	}
	if _, err := s.WriteFile(t.Context(), id, "torn", 0, strings.NewReader(strings.Repeat("x", 300<<10))); err != nil {
		t.Fatal(err)
	}
	r, err := s.ReadFile(t.Context(), id, "torn")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err == nil {
		t.Errorf("half a file reads as a whole one of %d bytes", n)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the pipe broke") }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestDirectoriesAndText(t *testing.T) {
	s := serve(t)
	id := s.vm()
	if _, err := s.Mkdir(t.Context(), id, "/work/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{"/write_file/" + id: `{"path":"/work/a.txt","content":"h\u00e9"}`} {
		if status, text, _ := s.raw("POST", path, body, nil); status != 200 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, text, _ := s.raw("POST", "/read_file/"+id, `{"path":"/work/a.txt"}`, nil); status != 200 || !strings.Contains(text, `"content":"hé"`) {
		t.Errorf("read: %d %s", status, text)
	}
	if _, err := s.WriteFile(t.Context(), id, "work/binary", 0, strings.NewReader("\xff\xfe")); err != nil {
		t.Fatal(err)
	}
	if status, text, _ := s.raw("POST", "/read_file/"+id, `{"path":"work/binary"}`, nil); status != 400 || !strings.Contains(text, "not text") {
		t.Errorf("read binary as text: %d %s", status, text)
	}
	list, err := s.ListFiles(t.Context(), id, "work", 1)
	var order []string
	for _, f := range list.Files {
		order = append(order, f.Path)
	}
	if err != nil || strings.Join(order, " ") != "work/deep work/a.txt work/binary" {
		t.Errorf("list: %v, %v", order, err)
	}
	if err := s.DeleteFile(t.Context(), id, "work", true); err != nil {
		t.Error(err)
	}
	if _, err := s.StatFile(t.Context(), id, "work"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after deleting: %v", err)
	}
}
