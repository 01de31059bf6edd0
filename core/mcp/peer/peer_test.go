package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// side answers as a test says.
type side struct {
	call func(ctx context.Context, method string, params []byte) ([]byte, error)
	note func(method string, params []byte)
}

func (s side) Call(ctx context.Context, method string, params []byte) ([]byte, error) {
	return s.call(ctx, method, params)
}

func (s side) Note(method string, params []byte) {
	if s.note != nil {
		s.note(method, params)
	}
}

func echo(_ context.Context, method string, params []byte) ([]byte, error) {
	return append([]byte(method+":"), params...), nil
}

// pair is two peers that are connected.
func pair(t *testing.T, a, b side) (*Peer, *Peer) {
	t.Helper()
	x, y := net.Pipe()
	p, q := New(t.Context(), x, a), New(t.Context(), y, b)
	t.Cleanup(func() { p.Close(); q.Close() })
	return p, q
}

func TestCallsRunAtOnceBothWays(t *testing.T) {
	p, q := pair(t, side{call: echo}, side{call: echo})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			from := p
			if i%2 == 0 {
				from = q
			}
			text := strconv.Itoa(i)
			if got, err := from.Call(t.Context(), "m", []byte(text)); err != nil || string(got) != "m:"+text {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
}

func TestErrorsGoOver(t *testing.T) {
	p, _ := pair(t, side{call: echo}, side{call: func(_ context.Context, method string, _ []byte) ([]byte, error) {
		if method == "own" {
			return nil, Errorf(CodeRefused, "no")
		}
		return nil, errors.New("broken")
	}})
	for method, code := range map[string]int64{"own": CodeRefused, "other": CodeFailed} {
		_, err := p.Call(t.Context(), method, nil)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != code {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestAnEndFailsWhatWaits(t *testing.T) {
	began := make(chan struct{})
	p, q := pair(t, side{call: echo}, side{call: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	go func() {
		<-began
		q.Close()
	}()
	_, err := p.Call(t.Context(), "m", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeLost {
		t.Errorf("a lost call ends with %v", err)
	}
	<-p.Over()
	if _, err := p.Call(t.Context(), "m", nil); err == nil {
		t.Error("a call after the end succeeds")
	}
}

func TestCancelReachesTheHandler(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	p, _ := pair(t, side{call: echo}, side{call: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := p.Call(ctx, "m", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

func TestTooManyCallsAreRefused(t *testing.T) {
	release := make(chan struct{})
	p, _ := pair(t, side{call: echo}, side{call: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	}})
	var all sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for range maxServing + 50 {
		all.Go(func() {
			_, err := p.Call(t.Context(), "m", nil)
			mu.Lock()
			defer mu.Unlock()
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeBusy {
				if refused++; refused == 50 {
					close(release)
				}
			}
		})
	}
	all.Wait()
	if refused != 50 {
		t.Errorf("%d calls were refused", refused)
	}
}

func TestAnAnswerTooLargeIsAnError(t *testing.T) {
	p, _ := pair(t, side{call: echo}, side{call: func(context.Context, string, []byte) ([]byte, error) { return make([]byte, MaxFrame), nil }})
	_, err := p.Call(t.Context(), "m", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeTooLarge {
		t.Error(err)
	}
}

func TestBadFramesEndTheConnection(t *testing.T) {
	for name, data := range map[string][]byte{
		"length zero": {0, 0, 0, 0}, "length over the limit": {0xff, 0, 0, 0}, "not CBOR": {0, 0, 0, 1, 0xff}, "no kind": {0, 0, 0, 1, 0xa0},
	} {
		t.Run(name, func(t *testing.T) {
			x, y := net.Pipe()
			p := New(t.Context(), x, side{call: echo})
			defer p.Close()
			if _, err := y.Write(data); err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Over():
			case <-time.After(time.Minute):
				t.Fatal("it goes on")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, one := range []*frame{
		{Kind: call, ID: 1, Method: "m", Body: []byte("x")}, {Kind: note, Method: "n"}, {Kind: answer, ID: 2}, {Kind: failure, ID: 3, Error: Errorf(1, "e")}, {Kind: cancel, ID: 4},
	} {
		data, err := encode(one)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(strings.Repeat("\x00", 8)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := encode(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(bytes.NewReader(again)); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("what was decoded cannot be decoded again: %v", err)
		}
	})
}
