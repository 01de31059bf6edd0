package mcprelay_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/guest/mcprelay"
	"capsem/core/proto"
)

// rig is a relay between an agent and a host, both of this test.
type rig struct {
	t    *testing.T
	host *net.UnixListener
	// in and out are the agent's.
	in   io.WriteCloser
	out  *bufio.Reader
	done chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "link.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	inRead, in := io.Pipe()
	out, outWrite := io.Pipe()
	r := &rig{t: t, host: l, in: in, out: bufio.NewReader(out), done: make(chan error, 1)}
	relay := mcprelay.Relay{Socket: path, In: inRead, Out: outWrite, Process: mcprelay.Claim("/proc", os.Getpid())}
	go func() {
		r.done <- relay.Run(t.Context())
		_ = outWrite.Close()
	}()
	t.Cleanup(func() { _ = l.Close(); _ = in.Close() })
	return r
}

// accept takes the relay's next connection.
func (r *rig) accept() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := r.host.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	var h proto.StreamHeader
	var open proto.MCPOpen
	if err := proto.ReadFrame(conn, proto.MaxFrame, &h); err != nil {
		r.t.Fatal(err)
	}
	if err := proto.ReadFrame(conn, proto.MaxFrame, &open); err != nil {
		r.t.Fatal(err)
	}
	if h.Port != proto.PortMCP || int(open.Process.PID) != os.Getpid() || open.Process.Exe == "" || len(open.Process.Parents) == 0 {
		r.t.Errorf("opened with %+v, %+v", h, open)
	}
	return conn, bufio.NewReader(conn)
}

func (r *rig) say(line string) {
	r.t.Helper()
	if _, err := io.WriteString(r.in, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func line(t *testing.T, from *bufio.Reader) string {
	t.Helper()
	text, err := from.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

const (
	hello = `{"jsonrpc":"2.0","id":1,"method":"initialize"}`
	ready = `{"jsonrpc":"2.0","method":"notifications/initialized"}`
)

func TestALinkThatBeginsAnewLosesOnlyWhatWaited(t *testing.T) {
	r := newRig(t)
	conn, from := r.accept()
	r.say(hello)
	r.say(ready)
	r.say(`{"jsonrpc":"2.0","id":"slow","method":"tools/call"}`)
	for _, want := range []string{hello, ready} {
		if got := line(t, from); got != want {
			t.Errorf("the host gets %s", got)
		}
	}
	line(t, from)
	fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":1,"result":{"first":true}}`)
	if got := line(t, r.out); !strings.Contains(got, "first") {
		t.Errorf("the agent gets %s", got)
	}
	_ = conn.Close()
	var lost struct {
		ID    string
		Error struct{ Code int }
	}
	if err := json.Unmarshal([]byte(line(t, r.out)), &lost); err != nil || lost.ID != "slow" || lost.Error.Code != -32001 {
		t.Errorf("what waited is answered with %+v, %v", lost, err)
	}
	// The session begins anew: the greeting goes again, its answer does not reach the agent, and the call is not repeated.
	conn, from = r.accept()
	defer conn.Close()
	for _, want := range []string{hello, ready} {
		if got := line(t, from); got != want {
			t.Errorf("the host gets %s again", got)
		}
	}
	fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":1,"result":{"second":true}}`)
	r.say(`{"jsonrpc":"2.0","id":2,"method":"ping"}`)
	if got := line(t, from); !strings.Contains(got, "ping") {
		t.Errorf("the host gets %s", got)
	}
	fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":2,"result":{}}`)
	if got := line(t, r.out); !strings.Contains(got, `"id":2`) {
		t.Errorf("the agent gets %s", got)
	}
}

func TestAnswersArriveAfterTheAgentHasHungUp(t *testing.T) {
	r := newRig(t)
	conn, from := r.accept()
	defer conn.Close()
	r.say(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	line(t, from)
	_ = r.in.Close()
	fmt.Fprintln(conn, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	if got := line(t, r.out); !strings.Contains(got, "result") {
		t.Errorf("the agent gets %s", got)
	}
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestALongLineIsAnswered(t *testing.T) {
	r := newRig(t)
	conn, from := r.accept()
	defer conn.Close()
	go func() { r.say(strings.Repeat("x", 2<<20)) }()
	if got := line(t, r.out); !strings.Contains(got, "-32600") {
		t.Errorf("the agent gets %s", got)
	}
	r.say(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	if got := line(t, from); !strings.Contains(got, "ping") {
		t.Errorf("the host gets %.80s", got)
	}
}
