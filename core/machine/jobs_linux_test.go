package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"capsem/core/fault"
	"capsem/core/guest/guesttest"
	"capsem/core/proto"
)

func (k *worker) job(op proto.WorkerOp, id string) proto.Job {
	k.t.Helper()
	return k.call(proto.WorkerRequest{Op: op, Job: id}).Jobs[0]
}

func (k *worker) detach(command string) proto.Started {
	k.t.Helper()
	conn := k.stream(proto.WorkerRequest{Op: proto.OpExec, Detach: true, Exec: &proto.ExecRequest{Command: command, Dir: "/"}})
	return collect(k.t, conn).started
}

func TestADetachedCommandOutlivesItsClient(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	gate := filepath.Join(t.TempDir(), "gate")
	started := k.detach(fmt.Sprintf("while [ ! -e %s ]; do read -t 0.01 < <(:); done; echo out; echo err >&2; exit 4", gate))
	if st := k.job(proto.OpJob, started.Job); st.State != proto.JobRunning || !st.Detached {
		t.Errorf("its job: %+v", st)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st := k.job(proto.OpWaitJob, started.Job)
	if st.State != proto.JobDone || st.Exit.Code != 4 || string(st.Stdout) != "out\n" || string(st.Stderr) != "err\n" {
		t.Errorf("its job: %+v", st)
	}
	if all := k.call(proto.WorkerRequest{Op: proto.OpJobs}).Jobs; len(all) != 1 || all[0].ID != started.Job {
		t.Errorf("all jobs: %+v", all)
	}
}

func TestACancelledJobDiesAndSaysSo(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	started := k.detach("exec sleep 1000")
	k.call(proto.WorkerRequest{Op: proto.OpCancelJob, Job: started.Job})
	st := k.job(proto.OpWaitJob, started.Job)
	if st.State != proto.JobDone || st.Exit.Signal != "SIGKILL" || st.Error != "cancelled" {
		t.Errorf("its job: %+v", st)
	}
	guesttest.Eventually(t, "its end", func() bool { return guesttest.Gone(started.PID) })
}

func TestACommandEndsWithItsClient(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	conn := k.shell("echo $$; exec sleep 1000")
	var o guesttest.Output
	for !strings.HasSuffix(o.Stdout, "\n") {
		o = guesttest.Until(t, conn, "\n")
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	pid := guesttest.PID(t, o.Stdout)
	guesttest.Eventually(t, "the command's end", func() bool { return guesttest.Gone(pid) })
	if st := k.job(proto.OpWaitJob, "j1"); st.State != proto.JobLost || st.Error != clientLeft {
		t.Errorf("its job: %+v", st)
	}
}

func TestCommandsAtOnceAreNotMixed(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	var wg sync.WaitGroup
	for i := range 20 {
		conn := k.shell(fmt.Sprintf("for i in $(seq 2000); do echo out-%d; done; echo err-%d >&2; exit %d", i, i, i))
		wg.Go(func() {
			o := collect(t, conn)
			if want := strings.Repeat(fmt.Sprintf("out-%d\n", i), 2000); o.stdout != want || o.stderr != fmt.Sprintf("err-%d\n", i) || o.exit.Code != i {
				t.Errorf("command %d: %d bytes, stderr %q, exit %+v", i, len(o.stdout), o.stderr, o.exit)
			}
		})
	}
	wg.Wait()
}

func TestWhatCannotBeRunSaysWhy(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]int{"/no/such": 127, plain: 126} {
		for _, detach := range []bool{false, true} {
			conn := k.stream(proto.WorkerRequest{Op: proto.OpExec, Detach: detach, Exec: &proto.ExecRequest{Argv: []string{path}, Dir: "/"}})
			if o := collect(t, conn); o.exit == nil || o.exit.Code != code || o.exit.Error == "" {
				t.Errorf("%s (detached %v): %+v", path, detach, o)
			}
		}
	}
}

func TestRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	k := start(t, realGuest(t))
	k.ready()
	c := k.dial()
	for name, r := range map[string]struct {
		req  proto.WorkerRequest
		code fault.Code
	}{
		"no such operation":  {proto.WorkerRequest{Op: "dance"}, fault.Invalid},
		"nothing to run":     {proto.WorkerRequest{Op: proto.OpExec}, fault.Invalid},
		"no such job":        {proto.WorkerRequest{Op: proto.OpJob, Job: "j9"}, fault.NotFound},
		"job without a name": {proto.WorkerRequest{Op: proto.OpWaitJob}, fault.Invalid},
		"no port":            {proto.WorkerRequest{Op: proto.OpForward}, fault.Invalid},
		"a name with ..":     {proto.WorkerRequest{Op: proto.OpRelocate, Dir: "/x", ID: "../x"}, fault.Invalid},
	} {
		if _, err := c.Call(t.Context(), r.req); !fault.Is(err, r.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
