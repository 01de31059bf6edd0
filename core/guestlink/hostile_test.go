package guestlink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/link"
	"capsem/core/proto"
)

func TestAttachRefusesAGuestThatBreaksTheHandshake(t *testing.T) {
	ready := proto.Ready{Protocol: proto.Version, Agent: "a"}
	after := func(m ...proto.GuestMessage) func(*testing.T, link.Stream) {
		return func(t *testing.T, c link.Stream) {
			for _, m := range m {
				tell(t, c, m)
			}
		}
	}
	raw := func(b []byte) func(*testing.T, link.Stream) {
		return func(_ *testing.T, c link.Stream) { _, _ = c.Write(b) }
	}
	for name, c := range map[string]struct {
		guest func(*testing.T, link.Stream)
		want  string
	}{
		"garbage":             {raw(bytes.Repeat([]byte{0xAB}, 1000)), "larger than allowed"},
		"text":                {raw([]byte("\x00\x00\x00\x05hello")), "decode"},
		"an empty frame":      {raw(make([]byte, 100)), "larger than allowed"},
		"a huge frame":        {raw(binary.BigEndian.AppendUint32(nil, 1<<30)), "larger than allowed"},
		"a cut frame":         {func(_ *testing.T, c link.Stream) { _, _ = c.Write([]byte{0, 0, 1, 0, 1}); _ = c.Close() }, "EOF"},
		"nothing":             {func(_ *testing.T, c link.Stream) { _ = c.Close() }, "EOF"},
		"a refused channel":   {func(_ *testing.T, c link.Stream) { c.(link.Refuser).Refuse() }, "no listener"},
		"the wrong order":     {after(proto.BootReady{}), "not Ready"},
		"a host's message":    {func(_ *testing.T, c link.Stream) { _ = proto.WriteHost(c, proto.BootConfigDone{}) }, "unknown guest message"},
		"another protocol":    {after(proto.Ready{Protocol: 99, Agent: "old"}), "speaks protocol 99"},
		"control characters":  {after(proto.Ready{Protocol: proto.Version, Agent: "\x1b[2J"}), "not plain text"},
		"ready twice":         {after(ready, proto.BootReady{}, proto.BootReady{}), "twice"},
		"timing twice":        {after(ready, proto.BootTiming{}, proto.BootTiming{}), "twice"},
		"a pong":              {after(ready, proto.Pong{Seq: 1}), "out of order"},
		"a second Ready":      {after(ready, ready), "out of order"},
		"script in a stage":   {after(ready, proto.BootReady{}, proto.BootTiming{Stages: []proto.BootStage{{Name: "<b>"}}}), "malformed"},
		"a stage of a year":   {after(ready, proto.BootTiming{Stages: []proto.BootStage{{Name: "a", DurationUS: 1 << 50}}}), "malformed"},
		"thousands of stages": {after(ready, proto.BootTiming{Stages: make([]proto.BootStage, 1000)}), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			host, guest := sessions(t)
			scripted(t, guest, func(st link.Stream) {
				c.guest(t, st)
				_, _ = io.Copy(io.Discard, st)
			})
			a, err := Attach(t.Context(), host, config())
			if err == nil {
				_ = a.Close()
				t.Fatal("Attach succeeds")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			if _, err := host.Open(t.Context(), proto.StreamHeader{Port: proto.PortExec}); !errors.Is(err, link.ErrSessionEnded) {
				t.Errorf("the session goes on: %v", err)
			}
		})
	}
}

func TestAttachEndsWithItsContext(t *testing.T) {
	for name, guest := range map[string]func(*testing.T, link.Stream){
		"silent from the start": func(*testing.T, link.Stream) {},
		"never takes its configuration": func(t *testing.T, c link.Stream) {
			tell(t, c, proto.Ready{Protocol: proto.Version})
		},
		"never ready": func(t *testing.T, c link.Stream) {
			tell(t, c, proto.Ready{Protocol: proto.Version})
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
		},
	} {
		t.Run(name, func(t *testing.T) {
			host, g := sessions(t)
			scripted(t, g, func(c link.Stream) { guest(t, c) })
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			cfg := config()
			for range 8 {
				cfg.Files = append(cfg.Files, proto.FileWrite{Path: "/f", Data: make([]byte, 200<<10)})
			}
			_, err := Attach(ctx, host, cfg)
			if !fault.Is(err, fault.Timeout) {
				t.Errorf("error %v is not a timeout", err)
			}
		})
	}
}

func TestAGuestOfAnotherVersionIsNamed(t *testing.T) {
	host, guest := sessions(t)
	scripted(t, guest, func(c link.Stream) { tell(t, c, proto.Ready{Protocol: 7, Agent: "v0.1"}) })
	_, err := Attach(t.Context(), host, config())
	code, message, hint := fault.Public(err)
	if code != fault.Unavailable || !strings.Contains(message, "v0.1") || !strings.Contains(message, "7") || hint == "" {
		t.Errorf("got %s: %s (%s)", code, message, hint)
	}
}

func TestTooManyFilesAreRefusedBeforeAnythingIsSent(t *testing.T) {
	host, _ := sessions(t)
	cfg := config()
	cfg.Files = make([]proto.FileWrite, proto.MaxBootFiles+1)
	if _, err := Attach(t.Context(), host, cfg); err == nil {
		t.Error("Attach succeeds")
	}
}

func TestAReadyGuestThatMisbehavesLosesTheSession(t *testing.T) {
	for name, guest := range map[string]func(*testing.T, link.Stream){
		"unasked pongs": func(t *testing.T, c link.Stream) {
			for range 1000 {
				tell(t, c, proto.Pong{Seq: 0})
			}
		},
		"a pong of the future":    func(t *testing.T, c link.Stream) { tell(t, c, proto.Pong{Seq: 1 << 60}) },
		"a handshake in the end":  func(t *testing.T, c link.Stream) { tell(t, c, proto.Ready{Protocol: proto.Version}) },
		"garbage":                 func(_ *testing.T, c link.Stream) { _, _ = c.Write(bytes.Repeat([]byte{0xEE}, 4096)) },
		"end of the control port": func(_ *testing.T, c link.Stream) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			host, g := sessions(t)
			scripted(t, g, func(c link.Stream) {
				boot(t, c)
				guest(t, c)
			})
			a, err := Attach(t.Context(), host, config())
			if err != nil {
				t.Fatal(err)
			}
			if err := waitDone(t, a); err == nil {
				t.Error("no reason is given")
			}
			if err := a.Ping(t.Context()); err == nil {
				t.Error("Ping succeeds")
			}
			if err := a.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestAFloodOfLifecycleRequestsIsBounded(t *testing.T) {
	started := make(chan struct{}, 1000)
	release := make(chan struct{})
	cfg := config()
	cfg.OnLifecycle = func(proto.LifecycleRequest) proto.LifecycleReply {
		started <- struct{}{}
		<-release
		return proto.LifecycleReply{OK: true}
	}
	_, guest := attached(t, cfg)
	answered := make(chan bool, 100)
	for range 50 {
		st, err := guest.Open(t.Context(), proto.StreamHeader{Port: proto.PortLifecycle})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer st.Close()
			_ = proto.WriteFrame(st, proto.LifecycleRequest{Action: proto.ActionPoweroff})
			var r proto.LifecycleReply
			answered <- proto.ReadFrame(st, proto.MaxHeader, &r) == nil && r.OK
		}()
	}
	for range 50 - maxLifecycle { // those over the limit are turned away while the others wait
		if <-answered {
			t.Error("a request over the limit was answered")
		}
	}
	if n := len(started); n != maxLifecycle {
		t.Errorf("%d requests were looked at together, want %d", n, maxLifecycle)
	}
	close(release)
	for range maxLifecycle {
		if !<-answered {
			t.Error("a request within the limit was not answered")
		}
	}
}
