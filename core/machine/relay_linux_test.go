package machine

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

func (k *worker) terminal() net.Conn {
	k.t.Helper()
	return k.stream(proto.WorkerRequest{Op: proto.OpTerminal, Terminal: &proto.TerminalOpen{Size: proto.WindowSize{Cols: 80, Rows: 24}}})
}

func TestATerminalStaysWhenItsViewerLeaves(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	first := k.terminal()
	guesttest.Send(t, first, proto.KindStdin, "echo mark-$((40+2))\n")
	guesttest.Until(t, first, "mark-42")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := k.terminal()
	guesttest.Until(t, again, "mark-42") // shown again
	size, err := json.Marshal(proto.WindowSize{Cols: 132, Rows: 50})
	if err != nil {
		t.Fatal(err)
	}
	guesttest.Send(t, again, proto.KindResize, string(size))
	guesttest.Send(t, again, proto.KindStdin, "stty size; exit 5\n")
	o := guesttest.Collect(t, again)
	if !strings.Contains(o.Stdout, "50 132") || o.Exit.Code != 5 {
		t.Errorf("ends with %q and %+v", o.Stdout, o.Exit)
	}
}

func TestAViewerThatBreaksTheRulesIsDropped(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	conn := k.terminal()
	guesttest.Send(t, conn, proto.KindData, "what?")
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Error(err)
	}
	if o := collect(t, k.shell("echo fine")); o.stdout != "fine\n" {
		t.Errorf("the VM suffers: %+v", o)
	}
}

func (k *worker) file(req proto.FileRequest) net.Conn {
	return k.stream(proto.WorkerRequest{Op: proto.OpFile, File: &req})
}

func TestFilesGoInAndOut(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	root := t.TempDir()
	content := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	up := k.file(proto.FileRequest{Op: proto.FileWriteOp, Root: root, Path: "x", Mode: 0o600})
	for rest := content; len(rest) > 0; {
		n := min(len(rest), proto.MaxChunk)
		guesttest.Send(t, up, proto.KindData, string(rest[:n]))
		rest = rest[n:]
	}
	guesttest.Send(t, up, proto.KindData, "")
	if o := guesttest.Collect(t, up); !o.Result.OK {
		t.Fatalf("written: %+v", o.Result)
	}
	down := guesttest.Collect(t, k.file(proto.FileRequest{Op: proto.FileRead, Root: root, Path: "x"}))
	if !down.Result.OK || down.Data != string(content) || down.Result.Info.Size != int64(len(content)) {
		t.Errorf("read: %d bytes, %+v", len(down.Data), down.Result)
	}
	missing := guesttest.Collect(t, k.file(proto.FileRequest{Op: proto.FileRead, Root: root, Path: "y"}))
	if missing.Result.OK || missing.Result.Code != string(fault.NotFound) {
		t.Errorf("a missing file: %+v", missing.Result)
	}
	jobs := k.call(proto.WorkerRequest{Op: proto.OpJobs}).Jobs
	if len(jobs) != 3 || jobs[0].Kind != "file" || jobs[0].State != proto.JobDone || jobs[0].Error == "" || jobs[2].Error != "" {
		t.Errorf("jobs: %+v", jobs)
	}
}

func TestAnUploadThatIsBrokenOffLeavesNothing(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	root := t.TempDir()
	up := k.file(proto.FileRequest{Op: proto.FileWriteOp, Root: root, Path: "x"})
	guesttest.Send(t, up, proto.KindData, "half")
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	if st := k.job(proto.OpWaitJob, "j1"); st.State != proto.JobLost || st.Error != clientLeft {
		t.Errorf("its job: %+v", st)
	}
	guesttest.Eventually(t, "nothing is left", func() bool {
		names, err := os.ReadDir(root)
		return err == nil && len(names) == 0
	})
	if _, err := os.Stat(filepath.Join(root, "x")); !os.IsNotExist(err) {
		t.Errorf("half a file: %v", err)
	}
}

// echo is a server on this system's loopback, which is the fake guest's too: it sends back what it got, once it has all.
func echo(t *testing.T, gone chan<- struct{}) uint16 {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(conn)
			if string(text) == "stay" { // until the other side is gone for good
				for err == nil {
					_, err = conn.Write([]byte("x"))
				}
				close(gone)
			}
			_, _ = conn.Write(text)
			_ = conn.Close()
		}
	}()
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

func TestAForwardedConnectionEndsByHalves(t *testing.T) {
	gone := make(chan struct{})
	port := echo(t, gone)
	k := start(t, realGuest(t))
	k.ready()
	text := strings.Repeat("there and back ", 100_000)
	conn := k.stream(proto.WorkerRequest{Op: proto.OpForward, ForwardPort: port})
	go func() {
		_, _ = io.WriteString(conn, text)
		closeWrite(conn)
	}()
	if got, err := io.ReadAll(conn); err != nil || string(got) != text {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	leaver := k.stream(proto.WorkerRequest{Op: proto.OpForward, ForwardPort: port})
	if _, err := io.WriteString(leaver, "stay"); err != nil {
		t.Fatal(err)
	}
	if _, ok := leaver.(link.CloseWriter); !ok {
		t.Fatal("no half ends")
	}
	closeWrite(leaver)
	if _, err := io.ReadFull(leaver, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := leaver.Close(); err != nil {
		t.Fatal(err)
	}
	<-gone
	refused := k.stream(proto.WorkerRequest{Op: proto.OpForward, ForwardPort: 1})
	if got, _ := io.ReadAll(refused); len(got) != 0 {
		t.Errorf("nobody listens and %q comes", got)
	}
}
