package audit

import (
	"strings"
	"testing"
	"unicode/utf8"

	"capsem/core/proto"
)

type message struct {
	kind uint16
	text string
}

// takeAll gives a joiner messages and returns the records that came of them.
func takeAll(j *joiner, messages []message) (out []proto.AuditRecord) {
	for _, m := range messages {
		if r, ok := j.take(m.kind, m.text); ok {
			out = append(out, r)
		}
	}
	return out
}

const stamp = "audit(1700000000.250:42): "

func TestTheMessagesOfOneStartBecomeOneRecord(t *testing.T) {
	call := stamp + `arch=c000003e syscall=59 success=yes exit=0 a0=5 a1=6 a2=7 a3=8 items=2 ppid=10 pid=11 auid=4294967295 uid=1000 gid=0 euid=0 tty=pts0 ses=4294967295 comm="ls" exe="/usr/bin/ls" subj=unconfined key=(null)` + "\x00"
	got := takeAll(newJoiner(), []message{
		{kindSyscall, call},
		{1302, stamp + `item=0 name="/usr/bin/ls"`},
		{kindExecve, stamp + `argc=4 a0="ls" a1="-l" a2=6120620A a3="x=y"`},
		{kindCwd, stamp + `cwd="/root"`},
		{kindEnd, "audit(1700000000.250:42): "},
	})
	want := proto.AuditRecord{
		Serial: 42, TimeNS: 1_700_000_000_250_000_000, PID: 11, PPID: 10, UID: 1000, Exe: "/usr/bin/ls", Comm: "ls", Argv: "ls -l a b\n x=y", Cwd: "/root", TTY: "pts0",
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestLongArgumentsComeInPieces(t *testing.T) {
	got := takeAll(newJoiner(), []message{
		{kindSyscall, stamp + `exit=-13 pid=1 ses=3 tty=(none) comm=61 exe=2F622063`},
		{kindExecve, stamp + `argc=3 a0="sh" a1_len=12 a1[0]="first" `},
		{kindExecve, stamp + `a1[1]="second" a2=(null)`},
		{kindEnd, "audit(1700000000.250:42):"},
	})
	if len(got) != 1 || got[0].Argv != "sh firstsecond " || got[0].Exit != -13 || got[0].Comm != "a" || got[0].Exe != "/b c" || got[0].TTY != "" || got[0].Session != 3 {
		t.Errorf("%+v", got)
	}
}

func TestEventsThatAreNoStartsOrHaveNoEndMakeNoRecord(t *testing.T) {
	j := newJoiner()
	got := takeAll(j, []message{
		{1326, stamp + "pid=1"},
		{kindEnd, "audit(1.0:1): "},
		{kindCwd, "audit(1.0:2): cwd=\"/\""},
		{kindEnd, "audit(1.0:2): "},
		{kindSyscall, stamp + "exit=-2 pid=1"},
		{kindEnd, stamp},
		{kindSyscall, "no audit"},
		{kindSyscall, "audit(1:2): pid=1"},
		{kindSyscall, "audit(-1.0:2): pid=1"},
		{kindSyscall, "audit(1.9999:2): pid=1"},
	})
	if len(got) != 0 || len(j.open) != 0 {
		t.Errorf("%+v, open %v", got, j.open)
	}
	for i := range 3 * maxOpen {
		j.take(kindSyscall, "audit(1.0:"+strings.Repeat("1", 1+i%15)+string(rune('0'+i%10))+"): pid=1")
	}
	if len(j.open) > maxOpen || len(j.order) != len(j.open) {
		t.Errorf("%d events are open", len(j.open))
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(uint16(kindSyscall), stamp+`pid=1 exe="/x" comm=6161`, uint16(kindExecve), stamp+`a0="x" a1[0]=FF a1[1]="`)
	f.Add(uint16(kindCwd), stamp+"cwd=", uint16(kindExecve), stamp+"a0="+strings.Repeat("ff", 5000))
	f.Fuzz(func(t *testing.T, k1 uint16, one string, k2 uint16, two string) {
		j := newJoiner()
		got := takeAll(j, []message{{k1, one}, {k2, two}, {kindSyscall, stamp + "pid=1"}, {kindEnd, stamp}})
		if err := (&proto.AuditBatch{Records: got}).Validate(); err != nil {
			t.Fatal(err)
		}
		for _, r := range got {
			if !utf8.ValidString(r.Argv + r.Exe + r.Comm + r.Cwd + r.TTY) {
				t.Fatalf("%+v", r)
			}
		}
	})
}
