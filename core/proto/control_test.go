package proto

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/fxamacker/cbor/v2"
)

func goodBoot(change func(*BootConfig)) BootConfig {
	b := BootConfig{ID: "vm1", Hostname: "vm1", EpochNS: 1, MachineID: strings.Repeat("0a", 16), Entropy: make([]byte, 32)}
	change(&b)
	return b
}

func hostMessages() []HostMessage {
	return []HostMessage{
		goodBoot(func(b *BootConfig) {
			b.Name, b.Timezone, b.Env = "n", "Europe/Berlin", map[string]string{"A": "b", "C": ""}
		}),
		FileWrite{Path: "/etc/a", Mode: 0o600, Data: []byte("x")},
		BootConfigDone{},
		Ping{Seq: 1<<64 - 1, EpochNS: 1<<63 - 1},
		Shutdown{GraceMS: 60_000, Reboot: true},
	}
}

func guestMessages() []GuestMessage {
	return []GuestMessage{
		Ready{Protocol: Version, Agent: "v1", BootID: "b", Restored: true},
		BootReady{Failed: []string{"swap: é"}},
		BootTiming{Stages: []BootStage{{Name: "init", DurationUS: MaxStageUS}}},
		Pong{Seq: 1<<64 - 1},
	}
}

func TestMessagesCrossAsTheyAreAndOnlyTheirWay(t *testing.T) {
	for _, m := range hostMessages() {
		var w bytes.Buffer
		if err := WriteHost(&w, m); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadGuest(bytes.NewReader(w.Bytes())); err == nil {
			t.Errorf("a guest may say %+v", got)
		}
		if got, err := ReadHost(&w); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v arrives as %+v, %v", m, got, err)
		}
	}
	for _, m := range guestMessages() {
		var w bytes.Buffer
		if err := WriteGuest(&w, m); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadHost(bytes.NewReader(w.Bytes())); err == nil {
			t.Errorf("a host may say %+v", got)
		}
		if got, err := ReadGuest(&w); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v arrives as %+v, %v", m, got, err)
		}
	}
}

// fromHost is one message at or over a limit.
type fromHost struct {
	m  HostMessage
	ok bool
}

func guestTakes(t *testing.T, cases map[string]fromHost) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var w bytes.Buffer
			if err := WriteHost(&w, c.m); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadHost(&w); (err == nil) != c.ok {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
}

func TestTheGuestTakesAConfigurationWithinItsLimits(t *testing.T) {
	env := func(k, v string) HostMessage {
		return goodBoot(func(b *BootConfig) { b.Env = map[string]string{k: v} })
	}
	host := func(s string) HostMessage { return goodBoot(func(b *BootConfig) { b.Hostname = s }) }
	zone := func(s string) HostMessage { return goodBoot(func(b *BootConfig) { b.Timezone = s }) }
	machine := func(s string) HostMessage { return goodBoot(func(b *BootConfig) { b.MachineID = s }) }
	entropy := func(n int) HostMessage { return goodBoot(func(b *BootConfig) { b.Entropy = make([]byte, n) }) }
	named := func(id, name int) HostMessage {
		return goodBoot(func(b *BootConfig) { b.ID, b.Name = strings.Repeat("i", id), strings.Repeat("n", name) })
	}
	clock := func(ns int64) HostMessage { return goodBoot(func(b *BootConfig) { b.EpochNS = ns }) }
	guestTakes(t, map[string]fromHost{
		"id and name of 64":         {named(64, 64), true},
		"id of 65":                  {named(65, 64), false},
		"name of 65":                {named(64, 65), false},
		"id with a NUL":             {goodBoot(func(b *BootConfig) { b.ID = "a\x00" }), false},
		"name with a NUL":           {goodBoot(func(b *BootConfig) { b.Name = "\x00" }), false},
		"name of letters":           {goodBoot(func(b *BootConfig) { b.Name = "é" }), true},
		"id of half a letter":       {goodBoot(func(b *BootConfig) { b.ID = "\xc3" }), false},
		"host name of 63":           {host(strings.Repeat("h", 63)), true},
		"host name of 64":           {host(strings.Repeat("h", 64)), false},
		"no host name":              {host(""), false},
		"host name with a slash":    {host("a/b"), false},
		"host name with a NUL":      {host("a\x00"), false},
		"host name with a dot":      {host("a.b"), false},
		"zone of three parts":       {zone("America/Indiana/Knox"), true},
		"zone above":                {zone("../../etc/passwd"), false},
		"zone from the root":        {zone("/etc/passwd"), false},
		"zone with a NUL":           {zone("UTC\x00"), false},
		"clock at 1":                {clock(1), true},
		"clock at 0":                {clock(0), false},
		"clock before 1970":         {clock(-1), false},
		"machine id of 31":          {machine(strings.Repeat("0", 31)), false},
		"machine id of 30":          {machine(strings.Repeat("0", 30)), false},
		"machine id of 34":          {machine(strings.Repeat("0", 34)), false},
		"machine id with a newline": {machine(strings.Repeat("0", 31) + "\n"), false},
		"no machine id":             {machine(""), false},
		"entropy of 32":             {entropy(32), true},
		"entropy of 31":             {entropy(31), false},
		"entropy of 512":            {entropy(512), true},
		"entropy of 513":            {entropy(513), false},
		"no entropy":                {entropy(0), false},
		"a variable":                {env("A", "b=c\n"), true},
		"a blocked variable":        {env("LD_PRELOAD", "/x"), false},
		"a variable with a NUL":     {env("A", "\x00"), false},
	})
}

func TestTheGuestTakesFilesAndOrdersWithinTheirLimits(t *testing.T) {
	file := func(path string, mode uint32) HostMessage { return FileWrite{Path: path, Mode: mode} }
	guestTakes(t, map[string]fromHost{
		"file in /":                {file("/a", 0o777), true},
		"file with mode 01000":     {file("/a", 0o1000), false},
		"file with setuid":         {file("/a", 0o4755), false},
		"file with every bit":      {file("/a", 1<<32-1), false},
		"file without a path":      {file("", 0), false},
		"relative file":            {file("a", 0), false},
		"file above":               {file("/a/../b", 0), false},
		"file in a directory ./":   {file("/./b", 0), false},
		"file after two slashes":   {file("//b", 0), false},
		"file with a slash behind": {file("/b/", 0), false},
		"file with a NUL":          {file("/a\x00b", 0), false},
		"file of half a letter":    {file("/\xc3", 0), false},
		"path of 4096":             {file("/"+strings.Repeat("p", MaxPath-1), 0), true},
		"path of 4097":             {file("/"+strings.Repeat("p", MaxPath), 0), false},
		"ping at 0":                {Ping{}, false},
		"ping before 1970":         {Ping{EpochNS: -1 << 63}, false},
		"grace of 60 s":            {Shutdown{GraceMS: 60_000}, true},
		"grace of 60.001 s":        {Shutdown{GraceMS: 60_001}, false},
		"no grace":                 {Shutdown{}, true},
		"grace of weeks":           {Shutdown{GraceMS: 1<<32 - 1}, false},
	})
}

func TestTheHostReadsGuestMessagesWithinTheirLimits(t *testing.T) {
	agent := func(s string) GuestMessage { return Ready{Protocol: Version, Agent: s} }
	bootID := func(s string) GuestMessage { return Ready{Protocol: Version, BootID: s} }
	failed := func(s ...string) GuestMessage { return BootReady{Failed: s} }
	stage := func(name string, us int64) GuestMessage {
		return BootTiming{Stages: []BootStage{{Name: "a"}, {Name: name, DurationUS: us}}}
	}
	stages := func(n int) GuestMessage {
		m := BootTiming{Stages: make([]BootStage, n)}
		for i := range m.Stages {
			m.Stages[i].Name = "s"
		}
		return m
	}
	for name, c := range map[string]struct {
		m  GuestMessage
		ok bool
	}{
		"agent of 64":                         {agent(strings.Repeat("a", 64)), true},
		"agent of 65":                         {agent(strings.Repeat("a", 65)), false},
		"no agent":                            {agent(""), true},
		"agent with a NUL":                    {agent("a\x00"), false},
		"agent with DEL":                      {agent("a\x7f"), false},
		"agent of two lines":                  {agent("a\nb"), false},
		"agent of half a letter":              {agent("\xc3"), false},
		"agent of the sign for one":           {agent("\uFFFD"), false},
		"boot id of 64":                       {bootID(strings.Repeat("b", 64)), true},
		"boot id of 65":                       {bootID(strings.Repeat("b", 65)), false},
		"boot id with an escape":              {bootID("\x1b[2J"), false},
		"agent with a right-to-left override": {agent("a\u202eb"), false},
		"agent with a control of 8 bits":      {agent("a\u009b2J"), false},
		"agent with a line separator":         {agent("a\u2028b"), false},
		"agent with a space of no width":      {agent("a\u200bb"), false},
		"agent of letters and spaces":         {agent("é € 中"), true},
		"protocol below zero":                 {Ready{Protocol: -1}, true}, // the handshake is what compares it
		"32 failed steps":                     {failed(make([]string, MaxBootStages)...), true},
		"33 failed steps":                     {failed(make([]string, MaxBootStages+1)...), false},
		"a failed step of 200":                {failed("a", strings.Repeat("f", 200)), true},
		"a failed step of 201":                {failed("a", strings.Repeat("f", 201)), false},
		"a failed step with a tab":            {failed("a", "b\tc"), false},
		"a failed step with a NUL":            {failed("\x00"), false},
		"half a letter failed":                {failed("\xc3"), false},
		"no stage":                            {stages(0), true},
		"32 stages":                           {stages(MaxBootStages), true},
		"33 stages":                           {stages(MaxBootStages + 1), false},
		"stage of 600 s":                      {stage("s", MaxStageUS), true},
		"stage of a bit more":                 {stage("s", MaxStageUS+1), false},
		"stage of no time":                    {stage("s", 0), true},
		"stage before it began":               {stage("s", -1), false},
		"stage of the least time":             {stage("s", -1<<63), false},
		"stage name of 64":                    {stage(strings.Repeat("s", 64), 0), true},
		"stage name of 65":                    {stage(strings.Repeat("s", 65), 0), false},
		"stage without a name":                {stage("", 0), false},
		"stage name with a slash":             {stage("a/b", 0), false},
		"stage name with a NUL":               {stage("a\x00", 0), false},
		"stage of half a letter":              {stage("\xc3", 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			var w bytes.Buffer
			if err := WriteGuest(&w, c.m); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadGuest(&w); (err == nil) != c.ok {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
}

func TestAMessageWithoutItsBodyIsCutShort(t *testing.T) {
	type d = map[string]any
	for name, v := range map[string]any{
		"no body of ping": d{"t": "ping"}, "null for ping": d{"t": "ping", "d": nil}, "undefined for ping": d{"t": "ping", "d": undefined},
		"no body of pong": d{"t": "pong"}, "null for pong": d{"t": "pong", "d": nil}, "undefined for pong": d{"t": "pong", "d": undefined},
		"no body of ready": d{"t": "ready"}, "no body of shutdown": d{"t": "shutdown"}, "null for the end": d{"t": "boot_config_done", "d": nil},
	} {
		t.Run(name, func(t *testing.T) {
			var w bytes.Buffer
			if err := WriteFrame(&w, v); err != nil {
				t.Fatal(err)
			}
			_, host := ReadHost(bytes.NewReader(w.Bytes()))
			_, guest := ReadGuest(&w)
			for _, err := range []error{host, guest} {
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("read with %v", err)
				}
			}
			if !errors.Is(host, io.ErrUnexpectedEOF) && !errors.Is(guest, io.ErrUnexpectedEOF) {
				t.Errorf("the host's is %v, the guest's %v", host, guest)
			}
		})
	}
}

// undefined is what a CBOR encoder of another kind may write for nothing.
var undefined = cbor.RawMessage{0xf7}

func TestNothingOfARefusedMessageIsHandedOut(t *testing.T) {
	for name, m := range map[string]any{
		"a bad host name":   goodBoot(func(b *BootConfig) { b.Hostname = "a/b" }),
		"a relative path":   FileWrite{Path: "a", Data: []byte("x")},
		"too long a grace":  Shutdown{GraceMS: 60_001},
		"a bad agent":       Ready{Agent: "a\n"},
		"a number for text": map[string]any{"epoch_ns": 1, "seq": 1, "agent": 1, "protocol": 1},
	} {
		body, err := Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		e := envelope{T: "x", D: body}
		zero(t, name, e, decodeAs[BootConfig])
		zero(t, name, e, decodeAs[FileWrite])
		zero(t, name, e, decodeAs[Shutdown])
		zero(t, name, e, decodeAs[Ready])
	}
}

func zero[T any](t *testing.T, name string, e envelope, decode func(envelope) (T, error)) {
	t.Helper()
	if got, err := decode(e); err != nil && !reflect.ValueOf(got).IsZero() {
		t.Errorf("%s: %+v is handed out with %v", name, got, err)
	}
}

// seedEnvelopes adds each message, and some that are nearly one.
func seedEnvelopes(f *testing.F) {
	for _, m := range hostMessages() {
		var w bytes.Buffer
		_ = WriteHost(&w, m)
		f.Add(w.Bytes()[4:])
	}
	for _, m := range guestMessages() {
		var w bytes.Buffer
		_ = WriteGuest(&w, m)
		f.Add(w.Bytes()[4:])
	}
	for _, v := range []any{
		map[string]any{"t": "ready"},
		map[string]any{"t": "pong", "d": nil},
		map[string]any{"t": "ping", "d": map[string]any{"epoch_ns": -1}},
		map[string]any{"t": "boot_timing", "d": map[string]any{"stages": make([]map[string]int, 4096)}},
		map[string]any{"d": map[string]int{}},
	} {
		b, _ := Marshal(v)
		f.Add(b)
	}
}

// FuzzReadGuest takes any frame of a guest: what passes is bounded and plain, no host message, and the same when written again.
func FuzzReadGuest(f *testing.F) {
	seedEnvelopes(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		in := metered(framed(body))
		var m GuestMessage
		var err error
		if n := taken(func() { m, err = ReadGuest(in) }); n > mostMemory || in.largest > MaxFrame {
			t.Fatalf("%d bytes are allocated, %d read at once", n, in.largest)
		}
		if err != nil {
			return
		}
		plain := func(s string, most int) bool {
			return len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r == '\uFFFD' || !unicode.IsPrint(r) })
		}
		switch m := m.(type) {
		case Ready:
			if !plain(m.Agent, 64) || !plain(m.BootID, 64) {
				t.Fatalf("%+v", m)
			}
		case BootReady:
			for _, s := range m.Failed {
				if len(m.Failed) > MaxBootStages || !plain(s, 200) {
					t.Fatalf("%+v", m)
				}
			}
		case BootTiming:
			for _, s := range m.Stages {
				if len(m.Stages) > MaxBootStages || s.Name == "" || !plain(s.Name, 64) || s.DurationUS < 0 || s.DurationUS > MaxStageUS {
					t.Fatalf("%+v", m)
				}
			}
		}
		first := rewritten(t, func(w io.Writer) error { return WriteGuest(w, m) })
		same, err := ReadGuest(bytes.NewReader(first))
		if err != nil {
			t.Fatalf("%+v is written and cannot be read: %v", m, err)
		}
		if second := rewritten(t, func(w io.Writer) error { return WriteGuest(w, same) }); !bytes.Equal(first, second) {
			t.Fatalf("written %x, read and written again %x", first, second)
		}
		if other, err := ReadHost(bytes.NewReader(framed(body))); err == nil {
			t.Fatalf("a guest's %+v is a host's %+v", m, other)
		}
	})
}

func rewritten(t *testing.T, write func(io.Writer) error) []byte {
	t.Helper()
	var w bytes.Buffer
	if err := write(&w); err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	return w.Bytes()
}

// FuzzReadHost takes any frame as a host's: what passes names no file out of its place, and is the same when written again.
func FuzzReadHost(f *testing.F) {
	seedEnvelopes(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		in := metered(framed(body))
		var m HostMessage
		var err error
		if n := taken(func() { m, err = ReadHost(in) }); n > mostMemory || in.largest > MaxFrame {
			t.Fatalf("%d bytes are allocated, %d read at once", n, in.largest)
		}
		if err != nil {
			return
		}
		switch m := m.(type) {
		case BootConfig:
			zone := "/" + m.Timezone + "/"
			if strings.Contains(zone, "/../") || strings.Contains(zone, "/./") || (m.Timezone != "" && strings.Contains(zone, "//")) ||
				len(m.Env) > MaxEnv || m.EpochNS <= 0 || len(m.Entropy) < 32 || strings.ContainsAny(m.Hostname+m.Timezone, "\x00\n.") {
				t.Fatalf("%+v", m)
			}
		case FileWrite:
			if strings.Contains(m.Path+"/", "/../") || strings.Contains(m.Path, "\x00") || m.Path[0] != '/' || m.Mode > 0o777 {
				t.Fatalf("%+v", m)
			}
		case Shutdown:
			if m.GraceMS > 60_000 {
				t.Fatalf("%+v", m)
			}
		}
		if len(body) > MaxFrame-1024 { // what was left out is written as zero, which may be too much
			return
		}
		first := rewritten(t, func(w io.Writer) error { return WriteHost(w, m) })
		same, err := ReadHost(bytes.NewReader(first))
		if err != nil {
			t.Fatalf("%+v is written and cannot be read: %v", m, err)
		}
		if second := rewritten(t, func(w io.Writer) error { return WriteHost(w, same) }); !bytes.Equal(first, second) {
			t.Fatalf("written %x, read and written again %x", first, second)
		}
	})
}
