//go:build linux

package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/guest/exec"
	"capsem/core/guest/guesttest"
	"capsem/core/guest/identity"
	"capsem/core/guest/terminal"
	"capsem/core/link"
	"capsem/core/proto"
)

// kernel takes everything; power notes the end.
type kernel struct{}

func (kernel) Now() time.Time           { return time.Unix(1_800_000_000, 0) }
func (kernel) SetClock(time.Time) error { return nil }
func (kernel) Credit([]byte, int) error { return nil }
func (kernel) SetHostname(string) error { return nil }
func (kernel) NewBootID() error         { return nil }

type power chan bool

func (p power) Off(_ uint32, reboot bool) error { p <- reboot; return nil }

// sessions hands out one session after another, then waits for the end.
type sessions chan link.Session

func (s sessions) Accept(ctx context.Context) (link.Session, error) {
	select {
	case session := <-s:
		return session, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// start runs an agent and returns where it takes sessions from.
func start(t *testing.T) (sessions, power) {
	t.Helper()
	return startIn(t, t.TempDir())
}

// startIn runs an agent whose files are below a root.
func startIn(t *testing.T, root string) (sessions, power) {
	t.Helper()
	if err := os.MkdirAll(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	commands, err := exec.New(nil, guesttest.Log())
	if err != nil {
		t.Fatal(err)
	}
	p := make(power, 1)
	terminals := terminal.New(nil, guesttest.Log())
	a := New(Config{
		Log: guesttest.Log(), BootID: "boot-1", Identity: &identity.Setter{Kernel: kernel{}, Root: root},
		Exec: commands, Terminals: terminals, Power: p,
	})
	in := make(sessions)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx, in) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		a.Wait()
		terminals.Close()
		_ = commands.Close()
	})
	return in, p
}

// controlOf begins a session and returns it with its control stream, after the agent's greeting.
func controlOf(t *testing.T, in sessions) (link.Session, link.Stream, proto.Ready) {
	t.Helper()
	host, guest := guesttest.Sessions(t)
	in <- guest
	st, err := host.Open(t.Context(), proto.StreamHeader{Port: proto.PortControl})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	m, err := proto.ReadGuest(st)
	ready, ok := m.(proto.Ready)
	if err != nil || !ok {
		t.Fatalf("%T, %v", m, err)
	}
	return host, st, ready
}

func config() proto.BootConfig {
	return proto.BootConfig{ID: "vm", Hostname: "box", EpochNS: 1, MachineID: strings.Repeat("0a", 16), Entropy: make([]byte, 32), Env: map[string]string{"A": "1"}}
}

func say(t *testing.T, st io.Writer, messages ...proto.HostMessage) {
	t.Helper()
	for _, m := range messages {
		if err := proto.WriteHost(st, m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAHostConfiguresAndUsesTheGuestAgainAndAgain(t *testing.T) {
	t.Parallel()
	in, p := start(t)
	for i := range 2 {
		host, st, ready := controlOf(t, in)
		if ready.BootID != "boot-1" || ready.Restored != (i > 0) || ready.Protocol != proto.Version {
			t.Errorf("session %d: greeted with %+v", i, ready)
		}
		say(t, st, config(), proto.FileWrite{Path: "/placed", Mode: 0o600, Data: []byte("x")}, proto.BootConfigDone{})
		for _, want := range []proto.GuestMessage{proto.BootReady{}, proto.BootTiming{}} {
			if m, err := proto.ReadGuest(st); err != nil {
				t.Fatalf("%T instead of %T, %v", m, want, err)
			}
		}
		got := guesttest.Collect(t, guesttest.Open(t, host, proto.PortExec, &proto.ExecRequest{Command: "echo $A", Dir: "/"}))
		if got.Stdout != "1\n" {
			t.Errorf("%q, %+v", got.Stdout, *got.Exit)
		}
		say(t, st, proto.Ping{Seq: 9, EpochNS: 1_800_000_000_000_000_000})
		if m, err := proto.ReadGuest(st); err != nil || m != (proto.Pong{Seq: 9}) {
			t.Errorf("a ping is answered by %+v, %v", m, err)
		}
		if i > 0 {
			say(t, st, proto.Shutdown{GraceMS: 1, Reboot: true})
			if reboot := <-p; !reboot {
				t.Error("a reboot became a power-off")
			}
		}
		_ = host.Close()
	}
}

func TestHostileHostsAreHungUpOn(t *testing.T) {
	t.Parallel()
	in, _ := start(t)
	for name, messages := range map[string][]proto.HostMessage{
		"file first":    {proto.FileWrite{Path: "/x", Mode: 0o600}},
		"end first":     {proto.BootConfigDone{}},
		"configured on": {config(), config()},
		"late file":     {config(), proto.BootConfigDone{}, proto.FileWrite{Path: "/x", Mode: 0o600}},
	} {
		_, st, _ := controlOf(t, in)
		say(t, st, messages...)
		hungUp(t, name, st)
	}
	for name, bytes := range map[string]string{"garbage": "\x00\x00\x00\x04what", "a huge frame": "\xff\xff\xff\xff", "an empty frame": "\x00\x00\x00\x00"} {
		_, st, _ := controlOf(t, in)
		if _, err := st.Write([]byte(bytes)); err != nil {
			t.Fatal(err)
		}
		hungUp(t, name, st)
	}
	_, st, _ := controlOf(t, in) // and a good host is served after all of them
	say(t, st, config(), proto.BootConfigDone{})
	if m, err := proto.ReadGuest(st); err != nil {
		t.Errorf("%T, %v", m, err)
	}
}

// On a serial port nothing tells the host that the guest has ended a session.
func TestAHostSeesOnASerialPortThatItIsHungUpOn(t *testing.T) {
	t.Parallel()
	in, _ := start(t)
	ours, theirs := net.Pipe()
	acceptor := link.NewAcceptor(theirs, guesttest.Log())
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		s, err := acceptor.Accept(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		in <- s
	}()
	host, err := link.Connect(t.Context(), ours, guesttest.Log())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = host.Close(), acceptor.Close() })
	<-accepted
	st, err := host.Open(t.Context(), proto.StreamHeader{Port: proto.PortControl})
	if err != nil {
		t.Fatal(err)
	}
	say(t, st, proto.BootConfigDone{})
	if err := st.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = proto.ReadGuest(st)
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the host is told %v", err)
	}
}

func hungUp(t *testing.T, name string, st io.Reader) {
	t.Helper()
	for {
		m, err := proto.ReadGuest(st)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the guest waits for more", name)
		}
		if err != nil {
			return
		}
		if _, ok := m.(proto.Pong); ok {
			t.Errorf("%s: the guest goes on", name)
		}
	}
}
