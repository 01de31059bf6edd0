package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

// guestFiles scripts the file routes of VM dev: stat by path, and where content goes.
func (f *fakeService) guestFiles(files map[string]proto.FileInfo) (content map[string]string) {
	content = map[string]string{}
	f.mux.HandleFunc("GET /files/dev/stat", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("path")
		info, ok := files[name]
		if !ok {
			e := fault.New(fault.NotFound, "%s: no such file or directory", strings.TrimPrefix(name, "/"))
			writeJSON(w, fault.HTTPStatus(e), api.ErrorBody{Error: api.ErrorInfo{Code: string(e.Code), Message: e.Message}})
			return
		}
		writeJSON(w, http.StatusOK, info)
	})
	f.mux.HandleFunc("POST /files/dev/content", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			f.t.Error(err)
		}
		content[r.URL.Query().Get("path")+" "+r.URL.Query().Get("mode")] = string(text)
		writeJSON(w, http.StatusOK, api.FileReply{Success: true})
	})
	f.mux.HandleFunc("GET /files/dev/content", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "content of "+r.URL.Query().Get("path"))
	})
	f.answer("POST /files/dev/mkdir", api.FileReply{Success: true})
	return content
}

func mustWrite(t *testing.T, name, text string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return name
}

func mustFIFO(t *testing.T, name string) string {
	t.Helper()
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWhatIsNoFileIsRefusedAsASourceAtOnce(t *testing.T) {
	f := newService(t)
	dir := t.TempDir()
	pipe, link := mustFIFO(t, filepath.Join(dir, "pipe")), filepath.Join(dir, "link")
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(f.home.Dir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]string{
		pipe:        "is a named pipe, and cp copies files and directories; to copy what it gives: capsem cp - VM:PATH < " + pipe,
		link:        "is a named pipe, and",
		"/dev/zero": "is a device, and",
		socket:      "is a socket, and cp copies files and directories\n",
	} {
		r := f.capsem(nil, "cp", name, "dev:x")
		if r.code != 1 || !strings.HasPrefix(r.stderr, "capsem: "+name+" "+want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%+v", r)
		}
	}
	f.wantCalls() // nobody was asked
	// One that takes the place of a file after that look does not hold anybody up either.
	if _, _, err := openRegular(pipe); err == nil || !strings.Contains(err.Error(), "named pipe") {
		t.Error(err)
	}
}

func TestAFileGoesWhereItsTargetSays(t *testing.T) {
	local := mustWrite(t, filepath.Join(t.TempDir(), "data"), "text")
	for target, want := range map[string]string{
		"dev:":            "data 600",
		"dev:/etc":        "/etc/data 600",
		"dev:/etc/":       "/etc/data 600",
		"dev:/etc/new":    "/etc/new 600",
		"dev:/link/new":   "/link/new 600",
		"dev:new":         "new 600",
		"dev:/none/new":   "there is no directory /none in VM dev; capsem exec dev -- mkdir -p /none",
		"dev:/none/":      "there is no directory /none in VM dev; capsem exec dev -- mkdir -p /none",
		"dev:none/at/all": "there is no directory /root/none/at in VM dev; capsem exec dev -- mkdir -p /root/none/at",
		"dev:/etc//x//y":  "there is no directory /etc/x in VM dev; capsem exec dev -- mkdir -p /etc/x",
		"dev:/file/new":   "/file in VM dev is no directory",
	} {
		for _, source := range []string{local, filepath.Dir(local) + "/", "-"} {
			if source == "-" && (strings.HasSuffix(target, "/") || target == "dev:" || target == "dev:/etc") {
				continue
			}
			f := newService(t)
			content := f.guestFiles(map[string]proto.FileInfo{"/etc": {Type: "dir"}, "/link": {Type: "symlink"}, "/file": {Type: "file"}})
			f.stream("dev", func(_ api.ExecRequest, frames *proto.StreamReader, conn net.Conn) {
				for kind, data, err := frames.Next(); err == nil && (kind != proto.KindStdin || len(data) > 0); kind, data, err = frames.Next() {
				}
				send(conn, proto.KindExit, proto.ExitStatus{})
			})
			r := f.capsem(strings.NewReader("text"), "cp", source, target)
			wrong, _, refused := strings.Cut(want, "; ")
			refused = refused || strings.HasSuffix(want, "directory")
			switch {
			case refused && (r.code != 1 || r.stderr != "capsem: "+want+"\n"):
				t.Errorf("%s to %s: %+v, want %q", source, target, r, wrong)
			case refused:
				if calls := f.asked(); slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "POST") }) {
					t.Errorf("%s to %s: something was written: %q", source, target, calls)
				}
			case r.code != 0 || r.stderr != "":
				t.Errorf("%s to %s: %+v", source, target, r)
			case source == local && content[want] != "text":
				t.Errorf("%s: %q was written, want %q", target, content, want)
			}
		}
	}
}

func TestADirectoryArrivesAndWhatIsLeftOutOfItIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	mustWrite(t, filepath.Join(dir, "sub", "file"), "text")
	if err := errors.Join(os.Chmod(filepath.Join(dir, "sub", "file"), 0o4755), os.Symlink("/etc", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		mustFIFO(t, filepath.Join(dir, fmt.Sprintf("pipe%02d", i)))
	}
	f := newService(t)
	f.guestFiles(map[string]proto.FileInfo{})
	var names []string
	f.stream("dev", func(_ api.ExecRequest, frames *proto.StreamReader, conn net.Conn) {
		r, w := io.Pipe()
		go func() {
			for {
				kind, data, err := frames.Next()
				if err != nil || kind != proto.KindStdin || len(data) == 0 {
					_ = w.CloseWithError(err)
					return
				}
				_, _ = w.Write(data)
			}
		}()
		for tr := tar.NewReader(r); ; {
			head, err := tr.Next()
			if err != nil {
				break
			}
			names = append(names, fmt.Sprintf("%s %o", head.Name, head.Mode))
		}
		_, _ = io.Copy(io.Discard, r)
		send(conn, proto.KindExit, proto.ExitStatus{})
	})
	named := filepath.Join(t.TempDir(), "named")
	if err := os.Symlink(dir, named); err != nil {
		t.Fatal(err)
	}
	r := f.capsem(nil, "cp", "-r", named, "dev:new")
	slices.Sort(names)
	if want := []string{". 700", "link 777", "sub 700", "sub/file 755"}; r.code != 0 || !slices.Equal(names, want) {
		t.Errorf("%+v: %q", r, names)
	}
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if len(lines) != 11 || lines[0] != fmt.Sprintf("capsem: left out %q: it is a named pipe", filepath.Join(named, "pipe00")) ||
		lines[10] != "capsem: left out 2 more pipes, sockets and devices" {
		t.Errorf("%d lines: %s", len(lines), r.stderr)
	}
}

func TestALinkInTheGuestIsFollowedToTheFileItStandsFor(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	f := newService(t)
	f.guestFiles(map[string]proto.FileInfo{
		"/etc/a": {Type: "symlink", Mode: "0777", Target: "../b"}, "/b": {Type: "symlink", Mode: "0777", Target: "/usr/c"},
		"/usr/c": {Type: "file", Mode: "0640"}, "/loop": {Type: "symlink", Target: "/loop"},
	})
	dir := t.TempDir()
	if r := f.capsem(nil, "cp", "dev:/etc/a", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	text, err := os.ReadFile(filepath.Join(dir, "a"))
	info, statErr := os.Stat(filepath.Join(dir, "a"))
	if err := errors.Join(err, statErr); err != nil || string(text) != "content of /usr/c" || info.Mode() != fs.FileMode(0o640) {
		t.Errorf("%q, %v, %v", text, info, err)
	}
	if r := f.capsem(nil, "cp", "dev:/loop", dir); r.code != 1 || !strings.Contains(r.stderr, "too many symbolic links") {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsMissingIsNamedAsTheUserNamedIt(t *testing.T) {
	f := newService(t)
	f.guestFiles(map[string]proto.FileInfo{"/a/file": {Type: "file", Mode: "0644"}})
	dir := t.TempDir()
	for line, want := range map[string]string{
		"dev:/no/such -":                         "there is no /no/such in VM dev",
		"dev:no -":                               "there is no /root/no in VM dev",
		"dev:/a/file " + dir + "/none/file":      "there is no directory " + dir + "/none; mkdir -p " + dir + "/none",
		"dev:/a/file " + dir + "/none/":          "there is no directory " + dir + "/none; mkdir -p " + dir + "/none",
		dir + "/none/at/all dev:/a":              "cannot read " + dir + "/none/at/all: no such file or directory",
		"dev:/a/file " + dir + "//none///b/file": "there is no directory " + dir + "/none/b; mkdir -p " + dir + "/none/b",
	} {
		r := f.capsem(nil, append([]string{"cp"}, strings.Fields(line)...)...)
		if r != (result{"", "capsem: " + want + "\n", 1}) {
			t.Errorf("%s: %+v, want %s", line, r, want)
		}
	}
	job := &copyJob{vm: "dev", guest: "/etc/x"}
	for message, want := range map[string]string{
		"etc/x is a directory": "/etc/x is a directory", "the disk is full": "the disk is full", "/etc/x: odd": "/etc/x: odd",
		`path "etc/x" is odd`: `path "/etc/x" is odd`,
	} {
		if got := fault.Line(job.inGuest(fault.New(fault.Conflict, "%s", message))); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCtrlCEndsAWaitForTheReaderOfAPipe(t *testing.T) {
	f := newService(t)
	asked := make(chan struct{})
	f.mux.HandleFunc("GET /files/dev/stat", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, proto.FileInfo{Type: "file", Mode: "0644"})
		close(asked)
	})
	cmd := f.command("cp", "dev:/x", mustFIFO(t, filepath.Join(t.TempDir(), "pipe")))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect(t, asked)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // looked at below
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("code %d", code)
	}
}

func TestAPipeWithAReaderIsWrittenTo(t *testing.T) {
	f := newService(t)
	f.guestFiles(map[string]proto.FileInfo{"/x": {Type: "file", Mode: "0644"}})
	pipe := mustFIFO(t, filepath.Join(t.TempDir(), "pipe"))
	got := make(chan string, 1)
	go func() {
		text, _ := os.ReadFile(pipe)
		got <- string(text)
	}()
	if r := f.capsem(nil, "cp", "dev:/x", pipe); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if text := expect(t, got); text != "content of /x" {
		t.Errorf("%q", text)
	}
}
