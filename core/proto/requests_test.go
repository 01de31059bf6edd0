package proto

import (
	"bytes"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFileRequestsAreWithinTheirLimits(t *testing.T) {
	at := func(root, name string) *FileRequest { return &FileRequest{Op: FileRead, Root: root, Path: name} }
	long := strings.Repeat("p", MaxPath)
	cases := map[string]limit{
		"no operation":          {&FileRequest{Path: "a"}, false},
		"another operation":     {&FileRequest{Op: "chmod", Path: "a"}, false},
		"an operation with NUL": {&FileRequest{Op: "read\x00", Path: "a"}, false},
		"a long operation":      {&FileRequest{Op: FileOp(long), Path: "a"}, false},
		"a path of 4096":        {at("", long), true},
		"a path of 4097":        {at("", long+"p"), false},
		"a root of 4096":        {at("/"+long[1:], "a"), true},
		"a root of 4097":        {at("/"+long, "a"), false},
		"the root /":            {at("/", "etc/passwd"), true},
		"a relative root":       {at("a", "a"), false},
		"a root above":          {at("/a/..", "a"), false},
		"a root with a slash":   {at("/a/", "a"), false},
		"a root with a NUL":     {at("/a\x00", "a"), false},
		"a path with slashes":   {at("", "a/b//c/"), true},
		"a path of no letters":  {at("", "a/\xc3"), false},
		"a root of no letters":  {at("/\xff", "a"), false},
		"an absolute path":      {at("", "/etc/passwd"), false},
		"a path with a NUL":     {at("", "a\x00"), false},
		"two dots":              {at("", ".."), false},
		"two dots in front":     {at("", "../a"), false},
		"two dots within":       {at("", "a/../../b"), false},
		"two dots behind":       {at("", "a/.."), false},
		"three dots":            {at("", "..."), true},
		"dots in a name":        {at("", "..a/b.."), true},
		"mode 0777":             {&FileRequest{Op: FileWriteOp, Path: "a", Mode: 0o777}, true},
		"mode 01000":            {&FileRequest{Op: FileWriteOp, Path: "a", Mode: 0o1000}, false},
		"every bit of a mode":   {&FileRequest{Op: FileWriteOp, Path: "a", Mode: 1<<32 - 1}, false},
		"no depth":              {&FileRequest{Op: FileList}, true},
		"depth 6":               {&FileRequest{Op: FileList, Depth: 6}, true},
		"depth 7":               {&FileRequest{Op: FileList, Depth: 7}, false},
		"depth -1":              {&FileRequest{Op: FileList, Depth: -1}, false},
	}
	for _, op := range []FileOp{FileRead, FileWriteOp, FileDelete, FileMkdir, FileList, FileStat} {
		whole := op == FileList || op == FileStat
		cases[string(op)+" of nothing"] = limit{&FileRequest{Op: op}, whole}
		for _, root := range []string{".", "./", ".//.", "././"} {
			cases[string(op)+" of "+root] = limit{&FileRequest{Op: op, Path: root}, whole}
		}
		cases[string(op)+" of a file"] = limit{&FileRequest{Op: op, Path: "a"}, true}
	}
	holdsLimits(t, func() validated { return &FileRequest{} }, cases)
}

func TestStreamHeadersAreWithinTheirLimits(t *testing.T) {
	holdsLimits(t, func() validated { return &StreamHeader{} }, map[string]limit{
		"the first port":    {StreamHeader{Port: PortControl}, true},
		"the one before":    {StreamHeader{Port: PortControl - 1}, false},
		"the last port":     {StreamHeader{Port: PortForward}, true},
		"the one after":     {StreamHeader{Port: PortForward + 1}, false},
		"no port":           {StreamHeader{}, false},
		"the highest port":  {StreamHeader{Port: 1<<32 - 1}, false},
		"a process of 128":  {StreamHeader{Port: PortNetwork, Process: strings.Repeat("p", 128)}, true},
		"a process of 129":  {StreamHeader{Port: PortNetwork, Process: strings.Repeat("p", 129)}, false},
		"an address of 300": {StreamHeader{Port: PortNetwork, Dest: strings.Repeat("d", 300)}, true},
		"an address of 301": {StreamHeader{Port: PortNetwork, Dest: strings.Repeat("d", 301)}, false},
		"half a letter":     {StreamHeader{Port: PortNetwork, Process: "\xc3"}, false},
		"half an address":   {StreamHeader{Port: PortNetwork, Dest: "\xed\xa0\x80"}, false},
	})
	h := StreamHeader{Port: PortNetwork, Process: strings.Repeat("p", 128), Dest: strings.Repeat("d", 300)}
	var w bytes.Buffer
	if err := WriteFrame(&w, h); err != nil || w.Len() > 4+MaxHeader {
		t.Errorf("the longest header has %d bytes, %v", w.Len(), err)
	}
}

func TestLifecycleRequestsAreOfTheThreeActions(t *testing.T) {
	of := func(a LifecycleAction) LifecycleRequest { return LifecycleRequest{Action: a} }
	holdsLimits(t, func() validated { return &LifecycleRequest{} }, map[string]limit{
		"poweroff":   {of(ActionPoweroff), true},
		"reboot":     {of(ActionReboot), true},
		"suspend":    {of(ActionSuspend), true},
		"none":       {of(""), false},
		"upper case": {of("Reboot"), false},
		"with a NUL": {of("reboot\x00"), false},
		"a path":     {of("../reboot"), false},
		"an escape":  {of("\x1b[2J"), false},
		"no letters": {of("\xc3"), false},
		"long":       {of(LifecycleAction(strings.Repeat("\x00", 4000))), false},
	})
}

func TestWorkerRequestsHaveWhatTheirOperationNeeds(t *testing.T) {
	job := func(op WorkerOp, n int) *WorkerRequest { return &WorkerRequest{Op: op, Job: strings.Repeat("j", n)} }
	move := func(dir, id, name string) *WorkerRequest {
		return &WorkerRequest{Op: OpRelocate, Dir: dir, ID: id, Name: name}
	}
	long := strings.Repeat("p", MaxPath)
	cases := map[string]limit{
		"no operation":         {&WorkerRequest{}, false},
		"another":              {&WorkerRequest{Op: "exec\x00"}, false},
		"exec without one":     {&WorkerRequest{Op: OpExec}, false},
		"exec of nothing":      {&WorkerRequest{Op: OpExec, Exec: &ExecRequest{}}, false},
		"exec":                 {&WorkerRequest{Op: OpExec, Exec: &ExecRequest{Command: "a"}, Detach: true}, true},
		"terminal without one": {&WorkerRequest{Op: OpTerminal}, false},
		"terminal of no size":  {&WorkerRequest{Op: OpTerminal, Terminal: &TerminalOpen{}}, false},
		"terminal":             {&WorkerRequest{Op: OpTerminal, Terminal: &TerminalOpen{Size: WindowSize{Cols: 1, Rows: 1}}}, true},
		"file without one":     {&WorkerRequest{Op: OpFile}, false},
		"file above":           {&WorkerRequest{Op: OpFile, File: &FileRequest{Op: FileRead, Path: "../a"}}, false},
		"file":                 {&WorkerRequest{Op: OpFile, File: &FileRequest{Op: FileRead, Path: "a"}}, true},
		"forward to port 0":    {&WorkerRequest{Op: OpForward}, false},
		"forward to port 1":    {&WorkerRequest{Op: OpForward, ForwardPort: 1}, true},
		"forward to the last":  {&WorkerRequest{Op: OpForward, ForwardPort: 1<<16 - 1}, true},
		"relocate to nothing":  {move("", "a", ""), false},
		"relocate nobody":      {move("/a", "", ""), false},
		"relocate":             {move("/a", "a", ""), true},
		"relocate to 4096":     {move("/"+long[1:], "a", ""), true},
		"relocate to 4097":     {move("/"+long, "a", ""), false},
		"relocate to relative": {move("a", "a", ""), false},
		"relocate to a slash":  {move("/a/", "a", ""), false},
		"relocate above":       {move("/a/../b", "a", ""), false},
		"relocate to a NUL":    {move("/a\x00", "a", ""), false},
		"relocate to no text":  {move("/\xc3", "a", ""), false},
		"relocate as 64":       {move("/a", long[:64], long[:64]), true},
		"relocate as id of 65": {move("/a", long[:65], ""), false},
		"relocate as name 65":  {move("/a", "a", long[:65]), false},
		"relocate as a NUL":    {move("/a", "a\x00", ""), false},
		"relocate as no text":  {move("/a", "a", "\xff"), false},
		"a job of no letters":  {&WorkerRequest{Op: OpJob, Job: "\xc3"}, false},
		"another's field":      {&WorkerRequest{Op: OpForward, Exec: &ExecRequest{Command: "a"}}, false},
	}
	for _, op := range []WorkerOp{OpJob, OpWaitJob, OpCancelJob} {
		cases[string(op)+" of nothing"] = limit{job(op, 0), false}
		cases[string(op)+" of 64"] = limit{job(op, 64), true}
		cases[string(op)+" of 65"] = limit{job(op, 65), false}
	}
	for _, op := range []WorkerOp{OpStatus, OpWatch, OpJobs, OpStop, OpKill, OpPause, OpResume} {
		cases[string(op)] = limit{&WorkerRequest{Op: op}, true}
	}
	holdsLimits(t, func() validated { return &WorkerRequest{} }, cases)
}

// refusedOnTheWire holds that the reader does not take v.
func refusedOnTheWire(t *testing.T, v, fresh any) {
	t.Helper()
	if frame := written(t, v); frame != nil {
		if err := ReadFrame(bytes.NewReader(frame), MaxFrame, fresh); err == nil {
			t.Fatalf("%+v is read", v)
		}
	}
}

// arrives holds that a v that passes has only texts, is read as it was and passes there.
func arrives(t *testing.T, v, fresh validated, texts ...string) bool {
	t.Helper()
	if v.Validate() != nil || written(t, v) == nil {
		return false
	}
	for _, s := range texts {
		if !utf8.ValidString(s) {
			t.Fatalf("%+v passes with %q", v, s)
		}
	}
	again(t, v, fresh)
	if err := fresh.Validate(); err != nil {
		t.Fatalf("%+v passes here, there %v", v, err)
	}
	return true
}

func checkExec(t *testing.T, e *ExecRequest) {
	t.Helper()
	total := len(e.Command)
	for _, a := range e.Argv {
		total += len(a)
	}
	if (e.Command == "") != (len(e.Argv) > 0) || total > MaxArgBytes || len(e.Argv) > MaxArgs || e.TimeoutMS < 0 || e.TimeoutMS > 30*24*3600*1000 ||
		len(e.ID) > 64 || strings.Contains(e.Command+e.Dir+strings.Join(e.Argv, ""), "\x00") {
		t.Fatalf("%+v passes", e)
	}
	checkEnv(t, e.Env)
}

func checkEnv(t *testing.T, env map[string]string) {
	t.Helper()
	for k, v := range env {
		if len(env) > MaxEnv || k == "" || len(k) > MaxEnvKey || len(v) > MaxEnvValue || strings.Contains(k+v, "\x00") || strings.Contains(k, "=") ||
			strings.HasPrefix(k, "LD_") || strings.HasPrefix(k, "BASH_FUNC_") {
			t.Fatalf("%q=%q passes", k, v)
		}
	}
}

func checkTerminal(t *testing.T, o *TerminalOpen) {
	t.Helper()
	if len(o.Session) > 64 || len(o.Term) > 64 || strings.ContainsAny(o.Session+o.Term, "/\x00\n") || o.Size.Cols == 0 || o.Size.Rows == 0 {
		t.Fatalf("%+v passes", o)
	}
	checkEnv(t, o.Env)
}

func checkFile(t *testing.T, f *FileRequest) {
	t.Helper()
	root := f.Root
	if root == "" {
		root = "/root"
	}
	full := path.Join(root, f.Path)
	beneath := root == "/" || full == root || strings.HasPrefix(full, root+"/")
	if !beneath || root[0] != '/' || strings.Contains(full, "\x00") || len(f.Path) > MaxPath || len(f.Root) > MaxPath || f.Mode > 0o777 ||
		f.Depth < 0 || f.Depth > 6 {
		t.Fatalf("%+v passes", f)
	}
}

func checkAny(t *testing.T, v validated) {
	t.Helper()
	switch v := v.(type) {
	case *ExecRequest:
		checkExec(t, v)
	case *TerminalOpen:
		checkTerminal(t, v)
	case *FileRequest:
		checkFile(t, v)
	case *StreamHeader:
		if v.Port < 5000 || v.Port > 5011 || len(v.Process) > 128 || len(v.Dest) > 300 {
			t.Fatalf("%+v passes", v)
		}
	case *WorkerRequest:
		switch v.Op {
		case OpExec:
			checkExec(t, v.Exec)
		case OpTerminal:
			checkTerminal(t, v.Terminal)
		case OpFile:
			checkFile(t, v.File)
		default:
		}
	default:
	}
}

// FuzzRequests takes any frame as each kind of request: what passes holds its limits and is accepted again when written again.
func FuzzRequests(f *testing.F) {
	kinds := []struct {
		fresh func() validated
		limit int
	}{
		{func() validated { return &StreamHeader{} }, MaxHeader},
		{func() validated { return &LifecycleRequest{} }, MaxHeader},
		{func() validated { return &ExecRequest{} }, MaxFrame},
		{func() validated { return &TerminalOpen{} }, MaxFrame},
		{func() validated { return &FileRequest{} }, MaxFrame},
		{func() validated { return &WorkerRequest{} }, MaxFrame},
	}
	size := WindowSize{Cols: 80, Rows: 24}
	for _, v := range []any{
		StreamHeader{Port: PortForward, Process: "curl", Dest: "127.0.0.1:80"},
		LifecycleRequest{Action: ActionReboot},
		ExecRequest{Argv: []string{"ls", "-l"}, Env: map[string]string{"A": "b"}, PTY: &size, TimeoutMS: 1},
		TerminalOpen{Session: "s", Size: size},
		FileRequest{Op: FileWriteOp, Root: "/srv", Path: "a/b", Mode: 0o644, Parents: true},
		WorkerRequest{Op: OpExec, Exec: &ExecRequest{Command: "true"}, Detach: true},
		WorkerRequest{Op: OpTerminal, Terminal: &TerminalOpen{Size: size}},
		WorkerRequest{Op: OpFile, File: &FileRequest{Op: FileStat}},
		WorkerRequest{Op: OpRelocate, Dir: "/a", ID: "b", Name: "b"},
	} {
		b, _ := Marshal(v)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range kinds {
			in, v := metered(framed(body)), kind.fresh()
			var err error
			if n := taken(func() { err = ReadFrame(in, kind.limit, v) }); n > mostMemory || in.largest > kind.limit {
				t.Fatalf("%T: %d bytes are allocated, %d read at once", v, n, in.largest)
			}
			if err != nil || v.Validate() != nil {
				continue
			}
			checkAny(t, v)
			arrives(t, v, kind.fresh())
		}
	})
}

// FuzzFileRequest fills a request: what passes stays beneath its root, arrives as it was and passes there.
func FuzzFileRequest(f *testing.F) {
	f.Add("read", "/srv", "a/b", uint32(0o644), 0)
	f.Add("list", "", "", uint32(0), 6)
	f.Add("delete", "/a/../b", "a/../..", uint32(0o1777), -1)
	f.Fuzz(func(t *testing.T, op, root, name string, mode uint32, depth int) {
		req := FileRequest{Op: FileOp(op), Root: root, Path: name, Mode: mode, Depth: depth, Recursive: depth%2 == 1, Parents: mode%2 == 1}
		if req.Validate() == nil {
			checkFile(t, &req)
		}
		var got FileRequest
		if arrives(t, &req, &got, root, name) && got != req {
			t.Fatalf("%+v arrives as %+v", req, got)
		}
	})
}

// FuzzAnswers takes any frame as what a worker or the host answers: it is the same when written again.
func FuzzAnswers(f *testing.F) {
	for _, v := range []any{
		WorkerHello{Protocol: Version, Build: "v1", PID: 1, ID: "a", BootNonce: "n"},
		LifecycleReply{OK: true, Message: "m"},
		WorkerStatus{ID: "a", State: "running", Stages: []BootStage{{Name: "s", DurationUS: 1}}, Failed: []string{"x"}},
		WorkerReply{Error: &StreamError{Code: "internal", Message: "x"}},
		WorkerReply{Jobs: []Job{{ID: "1", Kind: "exec", State: JobDone, Exit: &ExitStatus{Code: 1}, Stdout: []byte("x")}}},
	} {
		b, _ := Marshal(v)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, fresh := range []func() any{
			func() any { return &WorkerHello{} },
			func() any { return &WorkerStatus{} },
			func() any { return &WorkerReply{} },
			func() any { return &LifecycleReply{} },
		} {
			in, v := metered(framed(body)), fresh()
			var err error
			if n := taken(func() { err = ReadFrame(in, MaxFrame, v) }); n > mostMemory || in.largest > MaxFrame {
				t.Fatalf("%T: %d bytes are allocated, %d read at once", v, n, in.largest)
			}
			if err == nil {
				again(t, v, fresh())
			}
		}
	})
}
