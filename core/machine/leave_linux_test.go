package machine

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

// fill sends until nothing more is taken, then leaves.
func fill(t *testing.T, conn net.Conn, kind proto.Kind) {
	t.Helper()
	block := make([]byte, proto.MaxChunk)
	for {
		if err := conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		err := proto.WriteStreamFrame(conn, kind, block)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAClientThatLeavesIsNoticedWhileItsGuestTakesNothing(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	started := k.shell("echo $$; exec sleep 1000")
	pid := guesttest.PID(t, guesttest.Until(t, started, "\n").Stdout)
	fill(t, started, proto.KindStdin)
	guesttest.Eventually(t, "the command's end", func() bool { return guesttest.Gone(pid) })
	if st := k.job(proto.OpWaitJob, "j1"); st.State != proto.JobLost || st.Error != clientLeft {
		t.Errorf("its job: %+v", st)
	}
}

func TestAnUploadToAGuestThatTakesNothingEndsWithItsClient(t *testing.T) {
	held := make(chan link.Stream, 1)
	k := start(t, pretend(t, func(st link.Stream) { held <- st }))
	k.ready()
	fill(t, k.file(proto.FileRequest{Op: proto.FileWriteOp, Root: "/", Path: "x"}), proto.KindData)
	if st := k.job(proto.OpWaitJob, "j1"); st.State != proto.JobLost || st.Error != clientLeft {
		t.Errorf("its job: %+v", st)
	}
	_ = (<-held).Close()
}

func TestADetachedCommandIsNotLostToAClientThatLeavesAtOnce(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	for range 100 {
		conn := k.stream(proto.WorkerRequest{Op: proto.OpExec, Detach: true, Exec: &proto.ExecRequest{Argv: []string{"true"}, Dir: "/"}})
		if kind, _, err := proto.NewStreamReader(conn).Next(); err != nil || kind != proto.KindStarted {
			t.Fatalf("frame %d, %v", kind, err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, j := range k.call(proto.WorkerRequest{Op: proto.OpJobs}).Jobs {
		if st := k.job(proto.OpWaitJob, j.ID); st.State != proto.JobDone {
			t.Errorf("%s: %+v", j.ID, st)
		}
	}
}
