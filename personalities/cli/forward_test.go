package cli

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
)

// lockedText collects what several goroutines write.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write keeps the text.
func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is all of it so far.
func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestForwardRefusesAVMThatDoesNotRun(t *testing.T) {
	for _, status := range []lifecycle.State{lifecycle.Stopped, lifecycle.Suspended, lifecycle.Defunct, lifecycle.Stopping} {
		f := newService(t)
		f.answer("GET /info/dev", api.SandboxInfo{ID: "dev", Persistent: true, Status: status})
		want := "capsem: VM dev is " + string(status) + ": it has no ports; capsem resume dev starts it\n"
		if r := f.capsem(nil, "forward", "dev", "0:80"); r != (result{"", want, 1}) {
			t.Errorf("%+v", r)
		}
	}
}

func TestAForwardedPortThatNobodyAnswersIsToldOnce(t *testing.T) {
	f := newService(t)
	f.answer("GET /info/dev", api.SandboxInfo{ID: "dev", Persistent: true, Status: lifecycle.Running})
	f.mux.HandleFunc("POST /forward/dev", func(w http.ResponseWriter, r *http.Request) {
		conn, _ := f.upgrade(w, api.UpgradeForward)
		if r.URL.Query().Get("port") == "81" {
			_, _ = io.WriteString(conn, "hello")
		}
		_ = conn.Close()
	})
	ctx, cancel := context.WithCancel(t.Context())
	env := f.env("forward", "dev", "0:80", "0:81")
	out, in := io.Pipe()
	stderr := &lockedText{}
	env.Stdout, env.Stderr = in, stderr
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, env) }()
	lines := bufio.NewReader(out)
	addresses := make([]string, 2)
	for i := range addresses {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		addresses[i], _, _ = strings.Cut(line, " ")
	}
	for _, address := range []string{addresses[1], addresses[0], addresses[0], addresses[0], addresses[1]} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if want := map[string]string{addresses[1]: "hello"}[address]; string(text) != want {
			t.Errorf("%s: %q, %v", address, text, err)
		}
		_ = conn.Close()
	}
	cancel()
	if err := expect(t, ended); fault.ExitCode(err) != fault.ExitInterrupted && err != nil {
		t.Errorf("it ended with %v", err)
	}
	const want = "capsem: VM dev has ended a connection to its port 80 without a word: does anything listen on 127.0.0.1:80 in it?\n"
	if stderr.String() != want {
		t.Errorf("%q", stderr)
	}
}

func TestAPortsTroublesAreToldOnceEachAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stderr := &lockedText{}
		s := &session{}
		s.env.Stderr = stderr
		f := &forwarder{s: s, told: map[uint16]told{}}
		for _, step := range []struct {
			wait time.Duration
			port uint16
			text string
			told bool
		}{
			{0, 80, "silence", true},
			{0, 80, "silence", false},
			{0, 81, "silence", true}, // each port has its own
			{time.Hour, 80, "silence", false},
			{0, 80, "stopped", true},
			{0, 80, "silence", false}, // too soon
			{tellEvery, 80, "silence", true},
			{time.Second, 80, "", false}, // it has answered
			{0, 80, "silence", false},    // too soon
			{tellEvery, 80, "silence", true},
		} {
			<-time.After(step.wait)
			before := len(stderr.String())
			f.tell(step.port, step.text)
			if got := stderr.String()[before:]; (got != "") != step.told {
				t.Errorf("%+v: %q", step, got)
			}
		}
	})
}

// pair is a connection and its other end.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn) //nolint:forcetypeassert // of a TCP listener
}

func TestHowAForwardedConnectionEndsIsToldApart(t *testing.T) {
	for name, c := range map[string]struct {
		play func(user, guest *net.TCPConn)
		want splicing
	}{
		"the guest speaks": {func(user, guest *net.TCPConn) {
			_, _ = io.WriteString(guest, "hi")
			_ = guest.Close()
			_, _ = io.ReadAll(user)
			_ = user.Close()
		}, answered},
		"the guest hangs up": {func(user, guest *net.TCPConn) {
			_ = guest.Close()
			_, _ = io.ReadAll(user)
			_ = user.Close()
		}, hungUp},
		"the guest hangs up on a request": {func(user, guest *net.TCPConn) {
			_, _ = io.WriteString(user, "GET /")
			_, _ = io.ReadFull(guest, make([]byte, 5))
			_ = guest.Close()
			_, _ = io.ReadAll(user)
			_ = user.Close()
		}, hungUp},
		"the user only sends": {func(user, guest *net.TCPConn) {
			_, _ = io.WriteString(user, "all of it")
			_ = user.CloseWrite()
			_, _ = io.ReadAll(guest)
			_ = guest.Close()
			_, _ = io.ReadAll(user)
		}, undecided},
		"the user leaves": {func(user, guest *net.TCPConn) {
			_ = user.Close()
			_, _ = io.ReadAll(guest)
			_ = guest.Close()
		}, undecided},
	} {
		t.Run(name, func(t *testing.T) {
			local, user := pair(t)
			remote, guest := pair(t)
			go c.play(user, guest)
			if got := splice(local, remote); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}
