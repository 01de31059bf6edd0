//go:build linux

// Package guesttest gives the tests of the guest's packages a link to a host, and clients of its streams.
package guesttest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

// Log throws everything away.
func Log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Sessions returns both ends of a link session, closed with the test.
func Sessions(t testing.TB) (host, guest link.Session) {
	t.Helper()
	a, b := net.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var guestErr error
	var wg sync.WaitGroup
	wg.Go(func() { guest, guestErr = link.Accept(ctx, b, Log()) })
	host, err := link.Connect(ctx, a, Log())
	wg.Wait()
	if err = errors.Join(err, guestErr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = host.Close()
		_ = guest.Close()
	})
	return host, guest
}

// Serve has handle serve every stream that the host opens to a port, until the session ends. The test waits for it.
func Serve(t testing.TB, guest link.Session, port proto.Port, handle func(context.Context, link.Stream)) {
	t.Helper()
	l, err := guest.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			st, err := l.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { handle(ctx, st) })
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// Open opens a stream from the host with its request.
func Open(t testing.TB, host link.Session, port proto.Port, request any) link.Stream {
	t.Helper()
	st, err := host.Open(t.Context(), proto.StreamHeader{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	if err := proto.WriteFrame(st, request); err != nil {
		t.Fatal(err)
	}
	return st
}

// Send writes one frame.
func Send(t testing.TB, st io.Writer, kind proto.Kind, data string) {
	t.Helper()
	if err := proto.WriteStreamFrame(st, kind, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// Output is what a command or file operation sent until its end.
type Output struct {
	Stdout, Stderr, Data string
	Started              *proto.Started
	Exit                 *proto.ExitStatus
	Result               *proto.FileResult
}

// Collect reads a stream until its last frame.
func Collect(t testing.TB, st io.Reader) Output {
	t.Helper()
	o, err := collect(st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Until reads a stream until what came on Stdout contains text.
func Until(t testing.TB, st io.Reader, text string) Output {
	t.Helper()
	o, err := collect(st, func(o *Output) bool { return strings.Contains(o.Stdout, text) })
	if err != nil {
		t.Fatalf("%v after %q", err, o.Stdout)
	}
	if o.Exit != nil {
		t.Fatalf("ended with %+v after %q; wanted %q", *o.Exit, o.Stdout, text)
	}
	return o
}

func collect(st io.Reader, enough func(*Output) bool) (Output, error) {
	var o Output
	var out, errs, data strings.Builder
	r := proto.NewStreamReader(st)
	for {
		kind, b, err := r.Next()
		if err != nil {
			return o, err //nolint:wrapcheck // a test shows it
		}
		switch kind {
		case proto.KindStdout:
			out.Write(b)
		case proto.KindStderr:
			errs.Write(b)
		case proto.KindData:
			data.Write(b)
		case proto.KindStarted:
			err = json.Unmarshal(b, &o.Started)
		case proto.KindExit:
			err = json.Unmarshal(b, &o.Exit)
		case proto.KindResult:
			err = json.Unmarshal(b, &o.Result)
		default:
			err = proto.ErrBadStreamFrame
		}
		o.Stdout, o.Stderr, o.Data = out.String(), errs.String(), data.String()
		if err != nil || o.Exit != nil || o.Result != nil || (enough != nil && enough(&o)) {
			return o, err //nolint:wrapcheck // a test shows it
		}
	}
}

// Eventually waits for something that another process does.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("never happened: " + what)
		}
	}
}

// Gone reports whether a process has ended.
func Gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// PID reads the process id that a command printed or wrote.
func PID(t testing.TB, text string) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
