package proto

import (
	"maps"
	"strings"
	"testing"
)

func TestCommandsAreWithinTheirLimits(t *testing.T) {
	cmd := func(change func(*ExecRequest)) *ExecRequest {
		e := &ExecRequest{Command: "true"}
		change(e)
		return e
	}
	argv := func(a ...string) *ExecRequest { return &ExecRequest{Argv: a} }
	empties := func(n int) *ExecRequest { return argv(append([]string{"true"}, make([]string, n-1)...)...) }
	size := func(cols, rows uint16) *ExecRequest {
		return cmd(func(e *ExecRequest) { e.PTY = &WindowSize{Cols: cols, Rows: rows} })
	}
	holdsLimits(t, func() validated { return &ExecRequest{} }, map[string]limit{
		"a command":                    {cmd(func(*ExecRequest) {}), true},
		"neither":                      {&ExecRequest{}, false},
		"both":                         {&ExecRequest{Command: "a", Argv: []string{"a"}}, false},
		"an empty list":                {&ExecRequest{Argv: []string{}}, false},
		"no program name":              {argv("", "a"), false},
		"an empty argument":            {argv("a", ""), true},
		"a name with slashes":          {argv("/bin/../bin/true"), true},
		"a command of 200 KiB":         {&ExecRequest{Command: strings.Repeat("c", MaxArgBytes)}, true},
		"a command of one byte more":   {&ExecRequest{Command: strings.Repeat("c", MaxArgBytes+1)}, false},
		"arguments of 200 KiB":         {argv("a", strings.Repeat("b", MaxArgBytes-1)), true},
		"arguments of one byte more":   {argv("a", strings.Repeat("b", MaxArgBytes)), false},
		"4096 arguments":               {empties(MaxArgs), true},
		"4097 arguments":               {empties(MaxArgs + 1), false},
		"a NUL in the command":         {&ExecRequest{Command: "a\x00b"}, false},
		"a NUL in the last argument":   {argv("a", "b", "\x00"), false},
		"a NUL in the directory":       {cmd(func(e *ExecRequest) { e.Dir = "/a\x00" }), false},
		"a directory of 4096":          {cmd(func(e *ExecRequest) { e.Dir = strings.Repeat("d", MaxPath) }), true},
		"a directory of 4097":          {cmd(func(e *ExecRequest) { e.Dir = strings.Repeat("d", MaxPath+1) }), false},
		"an id of 64":                  {cmd(func(e *ExecRequest) { e.ID = strings.Repeat("i", 64) }), true},
		"an id of 65":                  {cmd(func(e *ExecRequest) { e.ID = strings.Repeat("i", 65) }), false},
		"no time limit":                {cmd(func(e *ExecRequest) { e.TimeoutMS = 0 }), true},
		"a millisecond":                {cmd(func(e *ExecRequest) { e.TimeoutMS = 1 }), true},
		"30 days":                      {cmd(func(e *ExecRequest) { e.TimeoutMS = 30 * 24 * 3600 * 1000 }), true},
		"a millisecond over 30 days":   {cmd(func(e *ExecRequest) { e.TimeoutMS = 30*24*3600*1000 + 1 }), false},
		"the largest time limit":       {cmd(func(e *ExecRequest) { e.TimeoutMS = 1<<63 - 1 }), false},
		"a command of no letters":      {&ExecRequest{Command: "echo \xe9"}, false},
		"an argument of no letters":    {argv("a", "b", "\xff"), false},
		"a program of no letters":      {argv("\xff"), false},
		"a directory of no letters":    {cmd(func(e *ExecRequest) { e.Dir = "/\xc3" }), false},
		"an id of no letters":          {cmd(func(e *ExecRequest) { e.ID = "\xc3" }), false},
		"letters of every length":      {argv("a", "é€𝄞"), true},
		"a negative time limit":        {cmd(func(e *ExecRequest) { e.TimeoutMS = -1 }), false},
		"the least time limit":         {cmd(func(e *ExecRequest) { e.TimeoutMS = -1 << 63 }), false},
		"a terminal of one cell":       {size(1, 1), true},
		"the largest terminal":         {size(4096, 4096), true},
		"a terminal without columns":   {size(0, 1), false},
		"a terminal without rows":      {size(1, 0), false},
		"a terminal of 4097 columns":   {size(4097, 1), false},
		"a terminal of 4097 rows":      {size(1, 4097), false},
		"the most a number holds":      {size(1<<16-1, 1<<16-1), false},
		"a variable that is not taken": {cmd(func(e *ExecRequest) { e.Env = map[string]string{"ENV": "x"} }), false},
	})
}

// environment is the part of requests that ValidateEnv checks.
type environment map[string]string

func (e environment) Validate() error { return ValidateEnv(e) }

func TestVariablesAreWithinTheirLimits(t *testing.T) {
	one := func(k, v string) environment { return environment{k: v} }
	cases := map[string]limit{
		"none":                       {environment{}, true},
		"nil":                        {environment(nil), true},
		"128":                        {environment(many(MaxEnv)), true},
		"129":                        {environment(many(MaxEnv + 1)), false},
		"a name of 256":              {one(strings.Repeat("K", MaxEnvKey), ""), true},
		"a name of 257":              {one(strings.Repeat("K", MaxEnvKey+1), ""), false},
		"no name":                    {one("", "v"), false},
		"a name with =":              {one("A=B", ""), false},
		"a name with a NUL":          {one("A\x00", ""), false},
		"a name with a slash":        {one("A/B", ""), true},
		"a value of 128 KiB":         {one("A", strings.Repeat("v", MaxEnvValue)), true},
		"a value of one byte more":   {one("A", strings.Repeat("v", MaxEnvValue+1)), false},
		"a name of no letters":       {one("A\xc3", ""), false},
		"a value of no letters":      {one("A", "v\xff"), false},
		"a value of a surrogate":     {one("A", "\xed\xa0\x80"), false},
		"a value with the sign":      {one("A", "\uFFFD"), true},
		"a value with a NUL":         {one("A", "v\x00"), false},
		"a value with = and a line":  {one("A", "=\n"), true},
		"a name like a blocked one":  {one("ENV_", ""), true},
		"a blocked name, lower case": {one("ld_preload", ""), true},
		"LD alone":                   {one("LD", ""), true},
		"LD_ alone":                  {one("LD_", ""), false},
		"LD_AUDIT":                   {one("LD_AUDIT", ""), false},
		"a function":                 {one("BASH_FUNC_ls%%", "() { :; }"), false},
	}
	for name := range blockedEnv {
		cases["blocked "+name] = limit{one(name, ""), false}
	}
	holdsLimits(t, func() validated { return &environment{} }, cases)
}

func TestTerminalsAreWithinTheirLimits(t *testing.T) {
	good := WindowSize{Cols: 80, Rows: 24}
	session := func(s string) *TerminalOpen { return &TerminalOpen{Session: s, Size: good} }
	term := func(s string) *TerminalOpen { return &TerminalOpen{Term: s, Size: good} }
	cases := map[string]limit{
		"no size":          {&TerminalOpen{}, false},
		"too large":        {&TerminalOpen{Size: WindowSize{Cols: 80, Rows: 4097}}, false},
		"a size":           {&TerminalOpen{Size: good}, true},
		"128 variables":    {&TerminalOpen{Size: good, Env: many(MaxEnv)}, true},
		"129 variables":    {&TerminalOpen{Size: good, Env: many(MaxEnv + 1)}, false},
		"a blocked one":    {&TerminalOpen{Size: good, Env: map[string]string{"BASH_ENV": "/x"}}, false},
		"a usual terminal": {term("xterm-256color"), true},
	}
	for name, c := range map[string]struct {
		s  string
		ok bool
	}{
		"of 64":         {strings.Repeat("n", 64), true},
		"of 65":         {strings.Repeat("n", 65), false},
		"with a slash":  {"a/b", false},
		"above":         {"..", false},
		"with a NUL":    {"a\x00", false},
		"with a line":   {"a\n", false},
		"of no letters": {"\xc3", false},
		"like a flag":   {"-a", false},
	} {
		cases["a session "+name] = limit{session(c.s), c.ok}
		cases["a terminal "+name] = limit{term(c.s), c.ok}
	}
	holdsLimits(t, func() validated { return &TerminalOpen{} }, cases)
}

func TestNoRequestIsReadWithHalfALetter(t *testing.T) {
	for name, c := range map[string]struct{ v, fresh any }{
		"command":  {&ExecRequest{Command: "\xc3"}, &ExecRequest{}},
		"argument": {&ExecRequest{Argv: []string{"a", "\xff"}}, &ExecRequest{}},
		"variable": {&ExecRequest{Command: "a", Env: map[string]string{"\xc3": ""}}, &ExecRequest{}},
		"value":    {&ExecRequest{Command: "a", Env: map[string]string{"A": "\xed\xa0\x80"}}, &ExecRequest{}},
		"path":     {&FileRequest{Op: FileRead, Path: "\xc3"}, &FileRequest{}},
		"header":   {&StreamHeader{Port: PortNetwork, Process: "\xc3"}, &StreamHeader{}},
		"job":      {&WorkerRequest{Op: OpJob, Job: "\xc3"}, &WorkerRequest{}},
	} {
		t.Run(name, func(t *testing.T) { refusedOnTheWire(t, c.v, c.fresh) })
	}
}

// FuzzExecRequest fills a request: what passes arrives as it was and passes there.
func FuzzExecRequest(f *testing.F) {
	f.Add("true", "", "", "/root", "A", "b", "id", int64(0), uint16(0), uint16(0))
	f.Add("", "ls", "-l", "", "PATH", "/bin:/x", "", int64(1500), uint16(80), uint16(24))
	f.Add("", "a\x00", "\xff", "..", "LD_PRELOAD", "\x00", "", int64(-1), uint16(4097), uint16(1))
	f.Fuzz(func(t *testing.T, command, arg0, arg1, dir, key, value, id string, timeout int64, cols, rows uint16) {
		e := ExecRequest{ID: id, Command: command, Dir: dir, Env: map[string]string{key: value}, Stdin: timeout%2 == 1, TimeoutMS: timeout}
		if arg0 != "" || arg1 != "" {
			e.Argv = []string{arg0, arg1}
		}
		if cols != 0 || rows != 0 {
			e.PTY = &WindowSize{Cols: cols, Rows: rows}
		}
		if e.Validate() == nil {
			checkExec(t, &e)
		}
		var got ExecRequest
		if arrives(t, &e, &got, id, command, arg0, arg1, dir, key, value) && (!maps.Equal(e.Env, got.Env) || e.Dir != got.Dir || e.TimeoutMS != got.TimeoutMS) {
			t.Fatalf("%+v arrives as %+v", e, got)
		}
	})
}

// FuzzTerminalOpen fills a request: what passes arrives as it was and passes there.
func FuzzTerminalOpen(f *testing.F) {
	f.Add("main", "xterm-256color", "A", "b", uint16(80), uint16(24))
	f.Add("../x", "a/b", "", "", uint16(0), uint16(4097))
	f.Fuzz(func(t *testing.T, session, term, key, value string, cols, rows uint16) {
		open := TerminalOpen{Session: session, Term: term, Env: map[string]string{key: value}, Size: WindowSize{Cols: cols, Rows: rows}}
		if open.Validate() == nil {
			checkTerminal(t, &open)
		}
		var got TerminalOpen
		if arrives(t, &open, &got, session, term, key, value) && (got.Session != session || got.Term != term || got.Size != open.Size) {
			t.Fatalf("%+v arrives as %+v", open, got)
		}
	})
}
