package localapi_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

func bufioReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func TestBadRequestsGetTheRightStatusAndSayWhatToDo(t *testing.T) {
	s := serve(t)
	id := s.vm()
	big := `{"command":"` + strings.Repeat("x", api.MaxBody) + `"}`
	for name, c := range map[string]struct {
		method, path, body string
		headers            map[string]string
		status             int
		says               string
	}{
		"unknown route":          {"GET", "/nowhere", "", nil, 404, "openapi"},
		"root":                   {"GET", "/", "", nil, 404, "openapi"},
		"wrong method":           {"GET", "/provision", "", nil, 405, "POST"},
		"unknown VM":             {"GET", "/info/nobody", "", nil, 404, "capsem list"},
		"traversal":              {"GET", "/info/..%2f..%2fetc", "", nil, 404, "no VM"},
		"no JSON":                {"POST", "/provision", "", nil, 400, "empty"},
		"half JSON":              {"POST", "/provision", `{"name":`, nil, 400, "JSON"},
		"two values":             {"POST", "/provision", `{}{}`, nil, 400, "follows"},
		"unknown field":          {"POST", "/provision", `{"neme":"x"}`, nil, 400, "neme"},
		"wrong type":             {"POST", "/provision", `{"cpus":"two"}`, nil, 400, "cpus"},
		"bad name":               {"POST", "/provision", `{"name":"a b"}`, nil, 400, "letters"},
		"many CPUs":              {"POST", "/provision", `{"cpus":99}`, nil, 422, "1-8"},
		"persist without a body": {"POST", "/persist/" + id, "", nil, 400, "empty"},
		"restart unnamed":        {"POST", "/restart/" + id, "", nil, 409, "persist"},
		"command and argv":       {"POST", "/exec/" + id, `{"command":"a","argv":["b"]}`, nil, 400, "either"},
		"no command":             {"POST", "/exec/" + id, `{}`, nil, 400, "either"},
		"negative timeout":       {"POST", "/exec/" + id, `{"command":"a","timeout_secs":-1}`, nil, 400, "time limit"},
		"terminal, buffered":     {"POST", "/exec/" + id, `{"command":"a","pty":{"cols":80,"rows":24}}`, nil, 400, "stream"},
		"blocked variable":       {"POST", "/exec/" + id, `{"command":"a","env":{"IFS":"x"}}`, nil, 400, "IFS"},
		"body too large":         {"POST", "/exec/" + id, big, nil, 413, "stdin"},
		"run and detach":         {"POST", "/run", `{"command":"a","detach":true}`, nil, 400, "provision"},
		"stream, no upgrade":     {"POST", "/exec/" + id + "/stream", "", nil, 400, "capsem-stream/1"},
		"forward, no upgrade":    {"POST", "/forward/" + id + "?port=1", "", nil, 400, "capsem-forward/1"},
		"forward, no port":       {"POST", "/forward/" + id, "", up("capsem-forward/1"), 400, "port"},
		"forward, odd port":      {"POST", "/forward/" + id + "?port=70000", "", up("capsem-forward/1"), 400, "65535"},
		"forward, unknown VM":    {"POST", "/forward/nobody?port=1", "", up("capsem-forward/1"), 404, "no VM"},
		"stream, unknown VM":     {"POST", "/exec/nobody/stream", "", up("capsem-stream/1"), 404, "no VM"},
		"no path":                {"GET", "/files/" + id + "/content", "", nil, 400, "name a file"},
		"path upwards":           {"GET", "/files/" + id + "/content?path=a/../../b", "", nil, 400, ".."},
		"absolute upwards":       {"GET", "/files/" + id + "/stat?path=/a/../b", "", nil, 400, ".."},
		"NUL in a path":          {"GET", "/files/" + id + "/stat?path=a%00b", "", nil, 400, "NUL"},
		"odd mode":               {"POST", "/files/" + id + "/mkdir?path=a&mode=9", "", nil, 400, "octal"},
		"setuid mode":            {"POST", "/files/" + id + "/mkdir?path=a&mode=4755", "", nil, 400, "octal"},
		"odd depth":              {"GET", "/files/" + id + "?depth=7", "", nil, 400, "6"},
		"odd boolean":            {"DELETE", "/files/" + id + "/content?path=a&recursive=maybe", "", nil, 400, "maybe"},
		"missing file":           {"GET", "/files/" + id + "/content?path=missing", "", nil, 404, "no such file"},
		"odd tail":               {"GET", "/logs/" + id + "?tail=-1", "", nil, 400, "tail"},
		"unknown job":            {"GET", "/jobs/" + id + "/job-99", "", nil, 404, "job-99"},
		"long job":               {"GET", "/jobs/" + id + "/" + strings.Repeat("j", 65), "", nil, 400, "job id"},
		"browser's Origin":       {"GET", "/list", "", map[string]string{"Origin": "http://evil.example"}, 403, "Origin"},
		"browser's Referer":      {"POST", "/purge", `{"all":true}`, map[string]string{"Referer": "http://evil.example/x"}, 403, "Referer"},
		"rebound Host":           {"GET", "/list", "", map[string]string{"Host": "evil.example"}, 403, "evil.example"},
		"large header":           {"GET", "/list", "", map[string]string{"X-Big": strings.Repeat("x", 64<<10)}, 431, ""},
	} {
		status, text, header := s.raw(c.method, c.path, c.body, c.headers)
		if status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s; want %d and %q", name, status, text, c.status, c.says)
		}
		var body api.ErrorBody
		if err := json.Unmarshal([]byte(text), &body); c.status != 431 && (err != nil || body.Error.Code == "" || body.Error.Message == "") {
			t.Errorf("%s: the answer is no error: %s", name, text)
		}
		if c.status != 431 && header.Get(api.VersionHeader) != buildinfo.Version {
			t.Errorf("%s: version header %q", name, header.Get(api.VersionHeader))
		}
	}
	if got, err := s.List(t.Context()); err != nil || len(got.Sandboxes) != 1 {
		t.Errorf("after all that: %+v, %v", got, err)
	}
}

func up(protocol string) map[string]string {
	return map[string]string{"Connection": "Upgrade", "Upgrade": protocol}
}

func TestALifeOverTheAPI(t *testing.T) {
	s := serve(t)
	ctx := t.Context()
	vm, err := s.Provision(ctx, api.ProvisionRequest{Name: "dev", Persistent: true})
	if err != nil || vm.ID != "dev" || vm.UDSPath != s.home.InstanceSocket("dev") {
		t.Fatalf("provision: %+v, %v", vm, err)
	}
	tmp := s.vm()
	if term, err := s.Terminal(ctx, tmp); err != nil || term.UDSPath != s.home.InstanceSocket(tmp) {
		t.Errorf("terminal: %+v, %v", term, err)
	}
	list, err := s.List(ctx)
	if err != nil || len(list.Sandboxes) != 2 || list.Sandboxes[0].Status != lifecycle.Running || !list.AssetHealth.Ready {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := s.Persist(ctx, tmp, "second"); err != nil {
		t.Errorf("persist: %v", err)
	}
	if r, err := s.Stop(ctx, "second"); err != nil || !r.Persistent {
		t.Errorf("stop: %+v, %v", r, err)
	}
	if info, err := s.Info(ctx, "second"); err != nil || info.Status != lifecycle.Stopped || info.SizeBytes == 0 {
		t.Errorf("info: %+v, %v", info, err)
	}
	if _, err := s.Exec(ctx, "second", api.ExecRequest{Command: "echo x"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("exec in a stopped VM: %v", err)
	}
	if _, err := s.Resume(ctx, "second"); err != nil {
		t.Errorf("resume: %v", err)
	}
	if _, err := s.Restart(ctx, "second"); err != nil {
		t.Errorf("restart: %v", err)
	}
	logs, err := s.Logs(ctx, "second", 1)
	if err != nil || logs.SerialLogs != "console of second\n" || !strings.Contains(logs.Logs, "== console\n"+"console of second") {
		t.Errorf("logs: %+v, %v", logs, err)
	}
	if err := s.Delete(ctx, "second"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if r, err := s.Purge(ctx, true); err != nil || r.Purged != 1 {
		t.Errorf("purge: %+v, %v", r, err)
	}
	st, err := s.Status(ctx)
	if err != nil || st.Running+st.Stopped != 0 || st.PID != os.Getpid() || st.Home != s.home.Dir() || st.Accelerator == "" {
		t.Errorf("status: %+v, %v", st, err)
	}
}

func TestLogsAreFollowedToTheEndOfTheVM(t *testing.T) {
	s := serve(t)
	id := s.vm()
	stream, err := s.FollowLogs(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	in := bufio.NewReader(stream)
	until := func(what string) {
		t.Helper()
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("%s never came: %v", what, err)
			}
			if strings.Contains(line, what) {
				return
			}
		}
	}
	until("console of " + id)
	f, err := os.OpenFile(filepath.Join(s.home.Session(id).Dir(), "serial.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("something new\n"); err != nil {
		t.Fatal(err)
	}
	until("something new")
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

func TestShutdownEndsTheServerAndLeavesTheVMs(t *testing.T) {
	s := serve(t)
	id := s.vm()
	conn, err := s.ExecStream(t.Context(), id, api.ExecRequest{Command: "hang"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if kind, _, err := proto.NewStreamReader(conn).Next(); err != nil || kind != proto.KindStarted {
		t.Fatalf("frame of kind %d, %v", kind, err)
	}
	if r, err := s.Shutdown(t.Context()); err != nil || r.Attached != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.stop() // waits
	if _, _, exit := frames(t, conn); exit != "" {
		t.Errorf("an attached command ends with %s", exit)
	}
	if _, err := s.List(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := os.Stat(s.home.InstanceSocket(id)); err != nil {
		t.Errorf("the worker: %v", err)
	}
}

func TestTheDocumentDescribesEveryRoute(t *testing.T) {
	s := serve(t)
	_, text, _ := s.raw("GET", "/openapi.json", "", nil)
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ Responses map[string]any }
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%v: %.200s", err, text)
	}
	// The comment of package api is the list of routes.
	source, err := os.ReadFile("../api/api.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := 0
	for line := range strings.Lines(string(source)) {
		words := strings.Fields(strings.TrimPrefix(line, "//"))
		if len(words) < 2 || !strings.HasPrefix(line, "//") || !strings.HasPrefix(words[1], "/") {
			continue
		}
		path, _, _ := strings.Cut(words[1], "?")
		routes++
		op, ok := doc.Paths[path][strings.ToLower(words[0])]
		if !ok || op.Responses["default"] == nil || len(op.Responses) < 2 {
			t.Errorf("%s %s is not described: %+v", words[0], path, op)
		}
	}
	total := 0
	for _, item := range doc.Paths {
		total += len(item)
	}
	if routes < 30 || routes != total {
		t.Errorf("%d routes in the comment, %d in the document", routes, total)
	}
	for _, field := range []string{"command", "argv", "timeout_secs", "ram_mb"} {
		if doc.Components.Schemas["RunRequest"].Properties[field] == nil {
			t.Errorf("RunRequest has no %s", field)
		}
	}
	for ref := range strings.SplitSeq(text, `"#/components/schemas/`) {
		name, _, _ := strings.Cut(ref, `"`)
		if _, ok := doc.Components.Schemas[name]; !ok && !strings.HasPrefix(ref, "{") {
			t.Errorf("schema %s is referred to and missing", name)
		}
	}
}
