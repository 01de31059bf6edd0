package qemu

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

const greeting = `{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22}},"capabilities":["oob"]}}` + "\n"

// peer is QEMU's end of a monitor: it says what script writes, and answers every command with an empty return.
func peer(t *testing.T, script func(w io.Writer)) *monitor {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		script(theirs)
		buf := make([]byte, 4096)
		for {
			if _, err := theirs.Read(buf); err != nil {
				return
			}
			if _, err := io.WriteString(theirs, "{\"return\":{}}\n"); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return newMonitor(ours)
}

func say(text string) func(io.Writer) {
	return func(w io.Writer) { _, _ = io.WriteString(w, text) }
}

func TestEventsBetweenAnswersAreKeptApart(t *testing.T) {
	m := peer(t, say(greeting+`{"event":"RESUME","timestamp":{"seconds":1}}`+"\n"+`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}`+"\n"))
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if out, err := m.Run([]byte(`{"execute":"cont"}`)); err != nil || !bytes.Contains(out, []byte("return")) {
			t.Errorf("got %q, %v", out, err)
		}
	}
	if e := <-m.events; e.Event != "RESUME" {
		t.Errorf("first event %+v", e)
	}
	if e := <-m.events; e.Event != "SHUTDOWN" || e.Data["reason"] != "guest-reset" {
		t.Errorf("second event %+v", e)
	}
	if err := m.Disconnect(); err != nil {
		t.Error(err)
	}
	if _, err := m.Run([]byte(`{"execute":"cont"}`)); err == nil {
		t.Error("a command is answered after the end")
	}
}

func TestABrokenOrHostileMonitorIsAnErrorAndNoMore(t *testing.T) {
	for name, script := range map[string]func(io.Writer){
		"no greeting":       say("{\"return\":{}}\n"),
		"no JSON":           say("hello\n"),
		"endless line":      func(w io.Writer) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 8<<20)) },
		"error for hello":   say(greeting + "{\"error\":{\"desc\":\"no\"}}\n"),
		"ends at once":      func(w io.Writer) { _ = w.(io.Closer).Close() },
		"ends in greeting":  func(w io.Writer) { _, _ = io.WriteString(w, greeting[:20]); _ = w.(io.Closer).Close() },
		"ends before reply": func(w io.Writer) { _, _ = io.WriteString(w, greeting); _ = w.(io.Closer).Close() },
	} {
		if err := peer(t, script).Connect(); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestAFloodOfEventsIsDroppedNotGathered(t *testing.T) {
	m := peer(t, say(greeting+strings.Repeat(`{"event":"NOISE"}`+"\n", 1000)))
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	if n := len(m.events); n > cap(m.events) {
		t.Errorf("%d events wait", n)
	}
	if err := m.Disconnect(); err != nil {
		t.Error(err)
	}
}

func FuzzMonitor(f *testing.F) {
	f.Add([]byte(greeting + "{\"return\":{}}\n"))
	f.Add([]byte(greeting + "{\"event\":\"SHUTDOWN\",\"data\":{\"reason\":7}}\n{\"error\":{}}\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		ours, theirs := net.Pipe()
		go func() {
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			_, _ = theirs.Write(text)
			_ = theirs.Close()
		}()
		m := newMonitor(ours)
		if m.Connect() == nil {
			_ = m.Disconnect()
		}
		_ = ours.Close()
	})
}
