package localapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never came: %s", what)
		}
	}
}

func TestExecReturnsWhatTheCommandDid(t *testing.T) {
	s := serve(t)
	id := s.vm()
	for name, c := range map[string]struct {
		req  api.ExecRequest
		want api.ExecReply
		code fault.Code
	}{
		"stdout":     {api.ExecRequest{Command: "echo hello"}, api.ExecReply{Stdout: "hello\n", DurationUS: 5}, ""},
		"stderr":     {api.ExecRequest{Argv: []string{"err", "oops"}}, api.ExecReply{Stderr: "oops\n", DurationUS: 5}, ""},
		"exit code":  {api.ExecRequest{Command: "exit 3"}, api.ExecReply{ExitCode: 3, DurationUS: 5}, ""},
		"missing":    {api.ExecRequest{Command: "nope"}, api.ExecReply{ExitCode: 127, Error: "nope: command not found"}, ""},
		"input":      {api.ExecRequest{Command: "cat", StdinText: "in\nput"}, api.ExecReply{Stdout: "in\nput", DurationUS: 5}, ""},
		"link broke": {api.ExecRequest{Command: "fail"}, api.ExecReply{}, fault.Unavailable},
	} {
		got, err := s.Exec(t.Context(), id, c.req)
		got.Job = ""
		if got != c.want && err == nil || (err == nil) != (c.code == "") || c.code != "" && !fault.Is(err, c.code) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	long, err := s.Exec(t.Context(), id, api.ExecRequest{Command: fmt.Sprint("spam ", api.MaxBufferedOutput+5)})
	if err != nil || !long.Truncated || len(long.Stdout) != api.MaxBufferedOutput {
		t.Errorf("a long output: %d bytes, truncated %v, %v", len(long.Stdout), long.Truncated, err)
	}
	if _, err := s.Exec(t.Context(), id, api.ExecRequest{Command: "die"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the worker dies: %v", err)
	}
}

func TestManyCommandsAtOnceAreNotMixed(t *testing.T) {
	s := serve(t)
	id := s.vm()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			text := strings.Repeat(fmt.Sprint(i, " "), 10000)
			got, err := s.Exec(t.Context(), id, api.ExecRequest{Command: "cat", StdinText: text})
			if err != nil || got.Stdout != text {
				t.Errorf("number %d: %d bytes of %d, %v", i, len(got.Stdout), len(text), err)
			}
		})
	}
	wg.Wait()
}

func TestStreamsCarryFramesBothWays(t *testing.T) {
	s := serve(t)
	id := s.vm()
	conn, err := s.ExecStream(t.Context(), id, api.ExecRequest{Command: "cat", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		for i := range 50 {
			_ = proto.WriteStreamFrame(conn, proto.KindStdin, fmt.Appendf(nil, "line %d\n", i))
		}
		_ = proto.WriteStreamFrame(conn, proto.KindStdin, nil)
	}()
	if out, _, exit := frames(t, conn); strings.Count(out, "\n") != 50 || !strings.Contains(exit, `"code":0`) {
		t.Errorf("%d lines, exit %s", strings.Count(out, "\n"), exit)
	}
	// What is wrong with the request is said on the stream.
	for name, req := range map[string]api.ExecRequest{"nothing": {}, "input text": {Command: "cat", StdinText: "x"}} {
		conn, err := s.ExecStream(t.Context(), id, req)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, exit := frames(t, conn); !strings.Contains(exit, `"code":"invalid"`) {
			t.Errorf("%s: %s", name, exit)
		}
		_ = conn.Close()
	}
}

func TestACommandEndsWhenItsClientLeaves(t *testing.T) {
	s := serve(t)
	id := s.vm()
	state := func(job int) proto.JobState {
		got, err := s.Job(t.Context(), id, fmt.Sprint("job-", job), false)
		if err != nil {
			return ""
		}
		return got.State
	}
	conn, err := s.ExecStream(t.Context(), id, api.ExecRequest{Command: "hang"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the stream's start", func() bool { return state(1) == proto.JobRunning })
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the stream's command", func() bool { return state(1) == proto.JobDone })

	for i, accept := range []string{"", "application/x-ndjson"} {
		path := "/exec/" + id
		if accept != "" {
			path += "/stream"
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+path, strings.NewReader(`{"command":"hang"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		conn := dialRaw(t, s)
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		await(t, "a start", func() bool { return state(i+2) == proto.JobRunning })
		_ = conn.Close()
		await(t, "the end of a command whose client left", func() bool { return state(i+2) == proto.JobDone })
	}
}

func TestDetachedCommandsAndJobs(t *testing.T) {
	s := serve(t)
	id := s.vm()
	started, err := s.Exec(t.Context(), id, api.ExecRequest{Command: "hang", Detach: true})
	if err != nil || started.Job != "job-1" {
		t.Fatalf("detach: %+v, %v", started, err)
	}
	jobs, err := s.Jobs(t.Context(), id)
	if err != nil || len(jobs.Jobs) != 1 || jobs.Jobs[0].State != proto.JobRunning || !jobs.Jobs[0].Detached {
		t.Errorf("jobs: %+v, %v", jobs, err)
	}
	waited := make(chan proto.Job, 1)
	go func() {
		job, err := s.Job(t.Context(), id, "job-1", true)
		if err != nil {
			t.Error(err)
		}
		waited <- job
	}()
	if err := s.CancelJob(t.Context(), id, "job-1"); err != nil {
		t.Error(err)
	}
	if job := <-waited; job.State != proto.JobDone || job.Exit == nil || job.Exit.Code != 137 {
		t.Errorf("waited for %+v", job)
	}
}

func TestLinesOfJSON(t *testing.T) {
	s := serve(t)
	for body, want := range map[string]string{
		`{"command":"echo hi"}`:              `"stdout":"aGkK"`,
		`{"command":"cat","stdin_text":"x"}`: `"stdout":"eA=="`,
		`{"command":"fail"}`:                 `"message":"the link broke"`,
		`{"command":"die"}`:                  `"code":"unavailable"`,
	} {
		status, text, _ := s.raw("POST", "/exec/"+s.vm()+"/stream", body, map[string]string{"Accept": "application/x-ndjson"})
		if status != 200 || !strings.Contains(text, want) || !strings.Contains(text, `"started":{"job":"job-`) {
			t.Errorf("%s: %d %s", body, status, text)
		}
		for line := range strings.Lines(text) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil || len(fields) != 1 {
				t.Errorf("%s: line %s: %v", body, line, err)
			}
		}
	}
}

func TestRunDestroysItsVMWhateverHappens(t *testing.T) {
	s := serve(t)
	empty := func() bool {
		list, err := s.List(t.Context())
		return err == nil && len(list.Sandboxes) == 0
	}
	for body, want := range map[string]string{
		`{"command":"echo hi","cpus":1}`: `"stdout":"hi\n"`, `{"command":"exit 4"}`: `"exit_code":4`,
	} {
		if status, text, _ := s.raw("POST", "/run", body, nil); status != 200 || !strings.Contains(text, want) || !empty() {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	// Whether the worker has the time to say how the command ended is open.
	if status, text, _ := s.raw("POST", "/run", `{"command":"poweroff"}`, nil); (status != 200 && status != 503) || !empty() {
		t.Errorf("a VM that powers itself off: %d %s", status, text)
	}
	if status, text, _ := s.raw("POST", "/run", `{"command":"fail"}`, nil); status != 503 || !empty() {
		t.Errorf("a command whose link breaks: %d %s", status, text)
	}
	conn := dialRaw(t, s)
	_, _ = io.WriteString(conn, "POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{\"command\":\"hang\"}")
	await(t, "a running VM", func() bool {
		list, err := s.List(t.Context())
		return err == nil && len(list.Sandboxes) == 1 && list.Sandboxes[0].Status == lifecycle.Running
	})
	_ = conn.Close()
	await(t, "the end of the VM whose client left", empty)
}

func TestForwardKeepsHalves(t *testing.T) {
	s := serve(t)
	conn, err := s.Forward(t.Context(), s.vm(), 8080)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "ping\n"); err != nil {
		t.Fatal(err)
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		t.Fatal("the client cannot end its half")
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "port 8080\nping\nend\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
