package guestlink

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

const patience = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// sessions is both ends of a link over a unix socket.
func sessions(t *testing.T) (host, guest link.Session) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan link.Session, 1)
	go func() {
		s, err := link.Accept(t.Context(), g, quiet())
		if err != nil {
			t.Error(err)
		}
		accepted <- s
	}()
	if host, err = link.Connect(t.Context(), h, quiet()); err != nil {
		t.Fatal(err)
	}
	guest = <-accepted
	t.Cleanup(func() { _, _ = host.Close(), guest.Close() })
	return host, guest
}

// scripted runs the guest's side of the control channel.
func scripted(t *testing.T, guest link.Session, script func(control link.Stream)) {
	t.Helper()
	l, err := guest.Listen(proto.PortControl)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		st, err := l.Accept(context.WithoutCancel(t.Context()))
		if err != nil {
			return
		}
		script(st)
	}()
}

// boot is the guest's half of a proper handshake; it returns what the host sent.
func boot(t *testing.T, control link.Stream) (cfg proto.BootConfig, files []proto.FileWrite) {
	tell(t, control, proto.Ready{Protocol: proto.Version, Agent: "test", BootID: "b"})
	for {
		m, err := proto.ReadHost(control)
		if err != nil {
			return cfg, files
		}
		switch m := m.(type) {
		case proto.BootConfig:
			cfg = m
		case proto.FileWrite:
			files = append(files, m)
		case proto.BootConfigDone:
			tell(t, control, proto.BootReady{Failed: []string{"swap"}})
			tell(t, control, proto.BootTiming{Stages: []proto.BootStage{{Name: "init", DurationUS: 12}}})
			return cfg, files
		}
	}
}

func tell(t *testing.T, control link.Stream, m proto.GuestMessage) {
	if err := proto.WriteGuest(control, m); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, link.ErrSessionEnded) &&
		!errors.Is(err, link.ErrReset) {
		t.Errorf("guest cannot send %T: %v", m, err)
	}
}

// pongs answers pings until the host is gone.
func answerPings(t *testing.T, control link.Stream, seen chan<- proto.HostMessage) {
	for {
		m, err := proto.ReadHost(control)
		if err != nil {
			return
		}
		if seen != nil {
			seen <- m
		}
		if p, ok := m.(proto.Ping); ok {
			tell(t, control, proto.Pong{Seq: p.Seq})
		}
	}
}

func config() Config {
	return Config{Log: quiet(), Boot: proto.BootConfig{
		ID: "vm1", Hostname: "vm1", MachineID: strings.Repeat("0a", 16), Entropy: make([]byte, 32),
		Env: map[string]string{"A": "b"},
	}}
}

// attached is an agent whose guest behaves.
func attached(t *testing.T, cfg Config) (*Agent, link.Session) {
	t.Helper()
	host, guest := sessions(t)
	scripted(t, guest, func(c link.Stream) {
		boot(t, c)
		answerPings(t, c, nil)
	})
	a, err := Attach(t.Context(), host, cfg)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return a, guest
}

func serve(t *testing.T, s link.Session, port proto.Port, handle func(link.Stream)) {
	t.Helper()
	l, err := s.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			st, err := l.Accept(context.WithoutCancel(t.Context()))
			if err != nil {
				return
			}
			handle(st)
			_ = st.Close()
		}
	}()
}

func readAll(t *testing.T, st link.Stream) string {
	t.Helper()
	b, err := io.ReadAll(st)
	if err != nil {
		t.Errorf("read stream: %v", err)
	}
	return string(b)
}

func waitDone(t *testing.T, a *Agent) error {
	t.Helper()
	select {
	case <-a.Done():
		return a.Err()
	case <-time.After(patience):
		t.Fatal("the agent goes on")
		return nil
	}
}
