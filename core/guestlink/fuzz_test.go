package guestlink

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

// tape is a stream whose other side says what it holds, then end-of-file, and takes whatever comes.
type tape struct {
	net.Conn // nil: what the reading side does not use
	r        io.Reader
	said     bytes.Buffer
	closed   atomic.Bool
}

func played(b []byte) *tape { return &tape{r: bytes.NewReader(b)} }

func (s *tape) Read(p []byte) (int, error)  { return s.r.Read(p) }
func (s *tape) Write(p []byte) (int, error) { return s.said.Write(p) }
func (s *tape) SetDeadline(time.Time) error { return nil }
func (s *tape) Close() error                { s.closed.Store(true); return nil }
func (s *tape) Header() proto.StreamHeader  { return proto.StreamHeader{} }

// deck is a session whose control stream is a tape and to which nobody opens streams.
type deck struct {
	control *tape
	closed  atomic.Int32
}

func (d *deck) Open(context.Context, proto.StreamHeader) (link.Stream, error) { return d.control, nil }

func (d *deck) Listen(proto.Port) (link.Listener, error) { return nobody{}, nil }
func (d *deck) Nonce() [16]byte                          { return [16]byte{} }
func (d *deck) Close() error                             { d.closed.Add(1); return nil }
func (d *deck) Done() <-chan struct{}                    { return nil }
func (d *deck) Err() error                               { return nil }

type nobody struct{}

func (nobody) Close() error { return nil }
func (nobody) Accept(ctx context.Context) (link.Stream, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func said(messages ...proto.GuestMessage) []byte {
	var w bytes.Buffer
	for _, m := range messages {
		_ = proto.WriteGuest(&w, m)
	}
	return w.Bytes()
}

// properly reports whether b begins with a proper handshake, and what it said.
func properly(b []byte) (ready proto.Ready, failed []string, stages []proto.BootStage, ok bool) {
	r := bytes.NewReader(b)
	m, err := proto.ReadGuest(r)
	if ready, ok = m.(proto.Ready); err != nil || !ok || ready.Protocol != proto.Version {
		return ready, nil, nil, false
	}
	first, err := proto.ReadGuest(r)
	if err != nil {
		return ready, nil, nil, false
	}
	second, err := proto.ReadGuest(r)
	if err != nil {
		return ready, nil, nil, false
	}
	if _, late := second.(proto.BootReady); late {
		first, second = second, first
	}
	boot, isBoot := first.(proto.BootReady)
	timing, isTiming := second.(proto.BootTiming)
	return ready, boot.Failed, timing.Stages, isBoot && isTiming
}

// FuzzAttach plays any control channel of a guest: Attach succeeds only after a proper handshake, keeps what was said
// there and nothing else, and the session is closed once, whatever comes.
func FuzzAttach(f *testing.F) {
	ready := proto.Ready{Protocol: proto.Version, Agent: "a", BootID: "b"}
	timing := proto.BootTiming{Stages: []proto.BootStage{{Name: "init", DurationUS: 12}}}
	proper := said(ready, proto.BootReady{Failed: []string{"swap"}}, timing)
	f.Add(proper)
	f.Add(said(ready, timing, proto.BootReady{}))
	f.Add(append(slices.Clone(proper), said(proto.Pong{}, proto.Pong{Seq: 1 << 60}, ready)...))
	f.Add(append(slices.Clone(proper), 0xff, 0xff, 0xff, 0xff))
	f.Add(said(ready, proto.BootReady{}, proto.BootReady{}, timing))
	f.Add(said(ready, timing, timing, proto.BootReady{}))
	f.Add(said(proto.Ready{Protocol: 99, Agent: "\x1b[2J"}))
	f.Add(proper[:len(proper)-1])
	f.Add([]byte("\x00\x00\x00\x05hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &deck{control: played(b)}
		cfg := config()
		cfg.Files = []proto.FileWrite{{Path: "/f", Data: []byte("x")}}
		a, err := Attach(t.Context(), d, cfg)
		ready, failed, stages, proper := properly(b)
		if (err == nil) != proper {
			t.Fatalf("a proper handshake: %v; Attach: %v", proper, err)
		}
		if err != nil {
			if len(err.Error()) > 1024 || strings.ContainsAny(err.Error(), "\x00\x1b\x7f") {
				t.Fatalf("the guest speaks through the error: %q", err)
			}
		} else {
			if a.Ready() != ready || !slices.Equal(a.Failed(), failed) || !slices.Equal(a.Stages(), stages) {
				t.Fatalf("kept: %+v, %v, %v; said: %+v, %v, %v", a.Ready(), a.Failed(), a.Stages(), ready, failed, stages)
			}
			if err := waitDone(t, a); err == nil { // the tape ends
				t.Fatal("no reason is given")
			}
			if err := a.Close(); err != nil || !d.control.closed.Load() {
				t.Fatalf("Close: %v", err)
			}
		}
		if n := d.closed.Load(); n != 1 {
			t.Fatalf("the session is closed %d times", n)
		}
	})
}

// FuzzPongs plays any control channel after the handshake, with a number of pings asked: no more pongs are taken,
// none of a ping that was not asked, and nothing but a pong.
func FuzzPongs(f *testing.F) {
	f.Add(said(proto.Pong{Seq: 1}, proto.Pong{Seq: 2}), uint8(2))
	f.Add(said(proto.Pong{Seq: 2}, proto.Pong{Seq: 2}, proto.Pong{Seq: 2}), uint8(2))
	f.Add(said(proto.Pong{Seq: 3}), uint8(2))
	f.Add(said(proto.Pong{Seq: 1<<64 - 1}), uint8(255))
	f.Add(said(proto.Pong{}), uint8(0))
	f.Add(said(proto.BootReady{}), uint8(1))
	f.Add([]byte("\x00\x04\x00\x01"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, asked uint8) {
		s := played(b)
		a := &Agent{session: &deck{control: s}, control: s}
		var waiting []<-chan struct{}
		for range asked {
			_, pong := a.pongs.ask()
			waiting = append(waiting, pong)
		}
		if err := a.readLoop(); err == nil {
			t.Fatal("no reason is given")
		}
		named := map[uint64]bool{}
		pongs, r := uint64(0), bytes.NewReader(b)
		for range asked {
			m, err := proto.ReadGuest(r)
			pong, ok := m.(proto.Pong)
			if err != nil || !ok || pong.Seq > uint64(asked) {
				break
			}
			pongs++
			named[pong.Seq] = true
		}
		if a.pongs.owed != uint64(asked)-pongs {
			t.Fatalf("%d of %d pings are still owed after %d pongs", a.pongs.owed, asked, pongs)
		}
		for i, pong := range waiting {
			answered := false
			select {
			case <-pong:
				answered = true
			default:
			}
			if seq := uint64(i + 1); answered != named[seq] {
				t.Fatalf("ping %d is answered: %v; a pong of it came: %v", seq, answered, named[seq])
			}
		}
	})
}

// FuzzLifecycle plays any request of a process in the guest: only a valid one is handed on, and each gets one answer.
func FuzzLifecycle(f *testing.F) {
	for _, action := range []proto.LifecycleAction{proto.ActionPoweroff, proto.ActionReboot, proto.ActionSuspend, "", "reboot\x00"} {
		var w bytes.Buffer
		_ = proto.WriteFrame(&w, proto.LifecycleRequest{Action: action})
		f.Add(w.Bytes())
	}
	f.Add([]byte("\x00\x00\x10\x01"))
	f.Add([]byte("\x00\x00\x00\x01\xa0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []proto.LifecycleRequest
		s := played(b)
		a := &Agent{log: quiet()}
		a.answerLifecycle(s, func(r proto.LifecycleRequest) proto.LifecycleReply {
			got = append(got, r)
			return proto.LifecycleReply{OK: true}
		})
		var want proto.LifecycleRequest
		valid := proto.ReadFrame(bytes.NewReader(b), proto.MaxHeader, &want) == nil && want.Validate() == nil
		if valid != (len(got) == 1 && got[0] == want) || (!valid && len(got) > 0) {
			t.Fatalf("valid: %v, handed on: %v", valid, got)
		}
		var reply proto.LifecycleReply
		if err := proto.ReadFrame(&s.said, proto.MaxHeader, &reply); err != nil || reply.OK != valid || s.said.Len() != 0 || !s.closed.Load() {
			t.Fatalf("answered %+v, %v, then %d bytes more", reply, err, s.said.Len())
		}
	})
}
