package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func TestEachVerbIsOneCallAndItsAnswer(t *testing.T) {
	yes := api.Success{Success: true}
	for line, c := range map[string]struct {
		route  string
		answer any
		calls  string
		stdout string
	}{
		"create": {"POST /provision", api.ProvisionReply{ID: "ab12"}, "POST /provision {}", "ab12\n"},
		"create -n dev --ram 1.5G --cpu 2 --disk 8 -e A=1,2 -e FROM_HOST": {
			"POST /provision",
			api.ProvisionReply{ID: "dev"},
			`POST /provision {"name":"dev","ram_mb":1536,"cpus":2,"disk_mb":8192,"persistent":true,"env":{"A":"1,2","FROM_HOST":"yes"}}`, "dev\n",
		},
		"create --secret hub --secret lab": {"POST /provision", api.ProvisionReply{ID: "ab12"}, `POST /provision {"secrets":["hub","lab"]}`, "ab12\n"},
		"create --no-secrets":              {"POST /provision", api.ProvisionReply{ID: "ab12"}, `POST /provision {"secrets":[]}`, "ab12\n"},
		"resume dev":                       {"POST /resume/dev", api.ProvisionReply{ID: "dev"}, "POST /resume/dev", "dev\n"},
		"attach dev":                       {"POST /resume/dev", api.ProvisionReply{ID: "dev"}, "POST /resume/dev", "dev\n"},
		"stop dev":                         {"POST /stop/dev", api.StopReply{Success: true, Persistent: true}, "POST /stop/dev", ""},
		"restart dev":                      {"POST /restart/dev", api.ProvisionReply{ID: "dev"}, "POST /restart/dev", ""},
		"delete dev":                       {"DELETE /delete/dev", yes, "DELETE /delete/dev", ""},
		"list --all -q":                    {"GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{{ID: "a"}}}, "GET /list", "a\n"},
		"list -a -q":                       {"GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{{ID: "a"}}}, "GET /list", "a\n"},
		"rm dev":                           {"DELETE /delete/dev", yes, "DELETE /delete/dev", ""},
		"persist ab12 my":                  {"POST /persist/ab12", yes, `POST /persist/ab12 {"name":"my"}`, ""},
		"purge": {
			"POST /purge", api.PurgeReply{Purged: 2, EphemeralPurged: 2}, `POST /purge {"all":false}`, "destroyed 2 temporary and 0 named VMs\n",
		},
		"purge --all -y": {
			"POST /purge",
			api.PurgeReply{Purged: 3, EphemeralPurged: 2, PersistentPurged: 1},
			`POST /purge {"all":true}`,
			"destroyed 2 temporary and 1 named VMs\n",
		},
		"logs dev --tail 5":      {"GET /logs/dev", api.LogsReply{Logs: "a\nb\n"}, "GET /logs/dev?tail=5", "a\nb\n"},
		"jobs dev j1 --cancel":   {"DELETE /jobs/dev/j1", yes, "DELETE /jobs/dev/j1", ""},
		"exec dev -d -- sleep 9": {"POST /exec/dev", api.ExecReply{Job: "j7"}, `POST /exec/dev {"argv":["sleep","9"],"detach":true}`, "j7\n"},
		"list -q": {
			"GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{{ID: "a"}, {ID: "b"}}}, "GET /list", "a\nb\n",
		},
		"service stop": {"POST /shutdown", yes, "POST /shutdown", "the service has stopped; VMs keep running\n"},
	} {
		t.Run(line, func(t *testing.T) {
			f := newService(t)
			f.answer(c.route, c.answer)
			r := f.capsem(nil, strings.Fields(line)...)
			if r.code != 0 || r.stderr != "" || r.stdout != c.stdout {
				t.Errorf("%+v, want stdout %q", r, c.stdout)
			}
			f.wantCalls(c.calls)
		})
	}
}

func TestAFaultIsOneLineOnStderrAndNothingOnStdout(t *testing.T) {
	f := newService(t)
	f.refuse("/", fault.New(fault.NotFound, "there is no VM %q", "x").WithHint("capsem list shows them"))
	const want = "capsem: there is no VM \"x\"; capsem list shows them\n"
	for _, line := range []string{
		"info x", "info x --json", "list --json", "logs x", "logs x -f", "stop x", "delete x", "restart x", "resume x", "persist x y", "purge", "create",
		"jobs x", "jobs x y", "cp x:/a -", "cp - x:/a", "forward x 80",
	} {
		if r := f.capsem(nil, strings.Fields(line)...); r != (result{"", want, fault.ExitFailure}) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	for _, line := range []string{"run true", "exec x true", "exec x -d true", "run -d true"} {
		if r := f.capsem(nil, strings.Fields(line)...); r != (result{"", want, fault.ExitCapsem}) {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func TestSeveralVMsAreAllTriedAndAllFailuresTold(t *testing.T) {
	f := newService(t)
	f.refuse("DELETE /delete/{id}", fault.New(fault.NotFound, "no such VM"))
	f.answer("DELETE /delete/b", api.Success{Success: true})
	r := f.capsem(nil, "delete", "a", "b", "c")
	if r.code != 1 || r.stderr != "capsem: no such VM\ncapsem: no such VM\n" {
		t.Errorf("%+v", r)
	}
	f.wantCalls("DELETE /delete/a", "DELETE /delete/b", "DELETE /delete/c")
}

func TestListShowsTheLastWordOfADeadVMWithoutItsEscapes(t *testing.T) {
	f := newService(t)
	f.answer("GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{
		{ID: "ab12", Status: lifecycle.Running, RAMMB: 2048, CPUs: 2, UptimeSecs: 3900},
		{ID: "dev", Name: "dev", Persistent: true, Status: lifecycle.Defunct, RAMMB: 512, CPUs: 1, LastError: "QEMU died\nfirst\n\x1b[2Jlast words"},
		{ID: "old", Name: "old", Persistent: true, Status: lifecycle.Stopped, RAMMB: 1536, CPUs: 8},
		{ID: "x", Status: lifecycle.Running, RAMMB: 256, CPUs: 1, Step: "standing still"},
	}})
	r := f.capsem(nil, "list")
	//nolint:dupword // a named VM's id is its name
	want := `ID    NAME  STATUS   RAM     CPUs  UPTIME
ab12  -     Running  2 GB    2     1h 05m
dev   dev   Defunct  512 MB  1     -
  QEMU died
  last log line: last words
  capsem resume dev starts it again; capsem logs dev tells more
old   old   Stopped  1.5 GB  8     -
x     -     Running  256 MB  1     -
  standing still
`
	if r.stdout != want || r.code != 0 {
		t.Errorf("code %d\n%s\nwant\n%s", r.code, r.stdout, want)
	}
}

func TestJSONIsWhatTheServiceSaid(t *testing.T) {
	f := newService(t)
	info := api.SandboxInfo{ID: "dev", Name: "dev", Status: lifecycle.Running, Accelerator: "tcg"}
	f.answer("GET /info/dev", info)
	r := f.capsem(nil, "info", "dev", "--json")
	var got api.SandboxInfo
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.Accelerator != "tcg" || got.ID != "dev" {
		t.Errorf("%+v: %v", r, err)
	}
	if r := f.capsem(nil, "info", "dev"); !strings.Contains(r.stdout, "accelerator   tcg\n") {
		t.Errorf("%+v", r)
	}
}

func TestJobsAreATableAndOneJobHasItsOutput(t *testing.T) {
	start := time.Now().Add(-time.Minute).UnixNano()
	job := proto.Job{
		ID: "j1", Kind: "exec", What: "make\x1b]", State: proto.JobDone, StartedNS: start, EndedNS: start + 2e9, Exit: &proto.ExitStatus{Code: 2},
		Stdout: []byte("end\n"), StdoutBytes: 100000, Stderr: []byte("oops\n"), StderrBytes: 5,
	}
	f := newService(t)
	f.answer("GET /jobs/dev", api.JobsReply{Jobs: []proto.Job{job, {ID: "j0", Kind: "read", What: "a", State: proto.JobRunning, StartedNS: start}}})
	f.answer("GET /jobs/dev/j1", job)
	if r := f.capsem(nil, "jobs", "dev"); !strings.Contains(r.stdout, "j1   done     2     2s    make\n") || !strings.Contains(r.stdout, "read a\n") {
		t.Errorf("%+v", r)
	}
	r := f.capsem(nil, "jobs", "dev", "j1", "--wait")
	if r.code != 2 || r.stderr != "" || !strings.Contains(r.stdout, "--- stdout (100000 bytes, the last 4)\nend\n--- stderr (5 bytes)\noops\n") || !strings.Contains(r.stdout, "exit code     2\n") {
		t.Errorf("%+v", r)
	}
	f.wantCalls("GET /jobs/dev", "GET /jobs/dev/j1?wait=1")
}

func TestWaitingForAJobEndsAsTheJobDid(t *testing.T) {
	for name, c := range map[string]struct {
		job  proto.Job
		args string
		code int
		says string
	}{
		"success":         {proto.Job{State: proto.JobDone, Exit: &proto.ExitStatus{}}, "--wait", 0, ""},
		"failure":         {proto.Job{State: proto.JobDone, Exit: &proto.ExitStatus{Code: 3}}, "--wait", 3, ""},
		"failure as JSON": {proto.Job{State: proto.JobDone, Exit: &proto.ExitStatus{Code: 3}}, "--wait --json", 3, ""},
		"time limit": {
			proto.Job{State: proto.JobDone, Exit: &proto.ExitStatus{Code: 137, TimedOut: true, DurationUS: 1e6}},
			"--wait", 124,
			"capsem: the command was ended after 1 s; give it more with --timeout\n",
		},
		"lost":             {proto.Job{State: proto.JobLost, Error: "the link broke"}, "--wait", 125, "capsem: how job j1 ended is not known: the link broke\n"},
		"file operation":   {proto.Job{Kind: "read", State: proto.JobDone}, "--wait", 0, ""},
		"failed operation": {proto.Job{Kind: "read", State: proto.JobDone, Error: "gone"}, "--wait", 125, "capsem: job j1 failed: gone\n"},
		"cancelled":        {proto.Job{State: proto.JobDone, Exit: &proto.ExitStatus{Code: 137}}, "--wait --cancel", 0, ""},
		"only looked at":   {proto.Job{State: proto.JobDone, Exit: &proto.ExitStatus{Code: 3}}, "", 0, ""},
	} {
		f := newService(t)
		f.answer("GET /jobs/dev/j1", c.job)
		f.answer("DELETE /jobs/dev/j1", api.Success{Success: true})
		if r := f.capsem(nil, append([]string{"jobs", "dev", "j1"}, strings.Fields(c.args)...)...); r.code != c.code || r.stderr != c.says {
			t.Errorf("%s: %+v", name, r)
		}
	}
	f := newService(t)
	f.refuse("/", fault.New(fault.NotFound, "there is no job j1"))
	if r := f.capsem(nil, "jobs", "dev", "j1", "--wait"); r != (result{"", "capsem: there is no job j1\n", 125}) {
		t.Errorf("%+v", r)
	}
}

func TestSizesOnDiskAreSaidOnlyWhereTheServiceSaysThem(t *testing.T) {
	f := newService(t)
	known := api.SandboxInfo{ID: "b", SizeBytes: 3 << 20, Status: lifecycle.Running}
	f.answer("GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{{ID: "a", RAMMB: 512}, known}})
	f.answer("GET /info/a", api.SandboxInfo{ID: "a"})
	f.answer("GET /info/b", known)
	var got struct {
		Sandboxes []map[string]any `json:"sandboxes"`
		Health    map[string]any   `json:"asset_health"`
	}
	r := f.capsem(nil, "list", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || len(got.Sandboxes) != 2 || got.Health == nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if _, said := got.Sandboxes[0]["size_bytes"]; said || got.Sandboxes[0]["ram_mb"] != 512.0 || got.Sandboxes[1]["size_bytes"] != float64(3<<20) {
		t.Errorf("%s", r.stdout)
	}
	if a, b := f.capsem(nil, "info", "a"), f.capsem(nil, "info", "b"); strings.Contains(a.stdout, "on disk") || !strings.Contains(b.stdout, "on disk       3 MB\n") {
		t.Errorf("%s%s", a.stdout, b.stdout)
	}
}

func TestLogsArePlainTextAndJSONIsAsItWas(t *testing.T) {
	f := newService(t)
	const raw = "\x1b[2J\x1b]0;t\x07[\x1b[32m  OK  \x1b[0m] up\r\n"
	f.answer("GET /logs/dev", api.LogsReply{Logs: raw})
	if r := f.capsem(nil, "logs", "dev"); r.stdout != "[  OK  ] up\n" {
		t.Errorf("%+v", r)
	}
	var got api.LogsReply
	if r := f.capsem(nil, "logs", "dev", "--json"); json.Unmarshal([]byte(r.stdout), &got) != nil || got.Logs != raw {
		t.Errorf("%+v", r)
	}
}

func TestLogsFollowUntilTheEnd(t *testing.T) {
	f := newService(t)
	f.mux.HandleFunc("GET /logs/dev", func(w http.ResponseWriter, _ *http.Request) {
		for _, line := range []string{"one\n", "two\n"} {
			_, _ = w.Write([]byte(line))
			_ = http.NewResponseController(w).Flush()
		}
	})
	if r := f.capsem(nil, "logs", "dev", "-f"); r.stdout != "one\ntwo\n" || r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestPurgeAllWithoutATerminalNeedsYes(t *testing.T) {
	f := newService(t)
	f.answer("GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{{ID: "a"}, {ID: "b", Persistent: true}}})
	r := f.capsem(strings.NewReader("y\n"), "purge", "--all")
	if r.code != 1 || r.stderr != "capsem: purge --all would destroy 1 named and 1 temporary VMs with their files; add -y to do it without being asked\n" {
		t.Errorf("%+v", r)
	}
	f.wantCalls("GET /list")
}

func TestVersionNeverStartsAServiceAndNamesARunningOne(t *testing.T) {
	f := newService(t)
	if r := f.capsem(nil, "version"); !strings.Contains(r.stdout, "service: same build, pid ") {
		t.Errorf("%+v", r)
	}
	var v versions
	r := f.capsem(nil, "version", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Service == nil || v.Version == "" {
		t.Errorf("%+v: %v", r, err)
	}
	alone := &fakeService{t: t, home: f.home + "/nowhere"}
	for _, line := range []string{"version", "--version"} {
		if r := alone.capsem(nil, line); r.code != 0 || !strings.Contains(r.stdout, "service: not running") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if r := alone.capsem(nil, "status"); r.code != 1 || r.stdout != "" || !strings.HasPrefix(r.stderr, "capsem: the service does not run; ") {
		t.Errorf("%+v", r)
	}
	if r := alone.capsem(nil, "service", "stop"); r.code != 0 || r.stdout != "the service was not running\n" {
		t.Errorf("%+v", r)
	}
	if r := alone.capsem(nil, "__complete", "exec"); r.code != 0 || !strings.Contains(r.stdout, "--workdir") {
		t.Errorf("%+v", r)
	}
}

func TestStatusShowsTheServicesOwnState(t *testing.T) {
	f := newService(t)
	f.answer("GET /status", api.ServiceStatus{Running: 2, MaxVMs: 10, Stopped: 1, Accelerator: "tcg (no /dev/kvm)", UptimeSecs: 60})
	r := f.capsem(nil, "status")
	for _, want := range []string{"2 running (at most 10), 1 stopped", "tcg (no /dev/kvm)", "capsem assets build"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is missing in %s", want, r.stdout)
		}
	}
	if again := f.capsem(nil, "service", "status"); again != r {
		t.Errorf("service status: %+v", again)
	}
}

func TestCompletionsKnowCommandsFlagsAndVMs(t *testing.T) {
	f := newService(t)
	f.answer("GET /list", api.ListReply{Sandboxes: []api.SandboxInfo{{ID: "dev"}}})
	for line, want := range map[string]string{"": "restart", "exec": "dev", "cp": "dev:", "service": "stop", "run": "--timeout", "completions": ""} {
		r := f.capsem(nil, append([]string{"__complete"}, strings.Fields(line)...)...)
		if r.code != 0 || !strings.Contains("\n"+r.stdout, "\n"+want+"\n") {
			t.Errorf("%q: %+v, want %s", line, r, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := f.capsem(nil, "completions", shell); r.code != 0 || !strings.Contains(r.stdout, "capsem __complete") {
			t.Errorf("%s: %+v", shell, r)
		}
	}
}

func TestAnInterruptedVerbExitsWith130(t *testing.T) {
	f := newService(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.mux.HandleFunc("GET /list", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	err := Run(ctx, f.env("list"))
	if got := fault.ExitCode(err); got != fault.ExitInterrupted || fault.Line(err) != "" {
		t.Errorf("code %d, %q", got, fault.Line(err))
	}
}
