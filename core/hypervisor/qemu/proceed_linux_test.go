package qemu

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/digitalocean/go-qemu/qmp/raw"

	"capsem/core/hypervisor"
)

// A state is used up as soon as the machine may have run from it; one that surely has not may be tried again.
func TestAStartThatFailsSaysWhetherTheMachineMayHaveRun(t *testing.T) {
	const yes, no = `{"return":{}}`, `{"error":{"class":"GenericError","desc":"Failed to get \"write\" lock"}}`
	status := func(s string) string { return `{"return":{"status":"` + s + `"}}` }
	for name, c := range map[string]struct {
		cont, status string // "" is the end of QEMU
		ok, ran      bool
	}{
		"it runs":                     {yes, status("running"), true, true},
		"refused":                     {no, status("paused"), false, false},
		"accepted, but it waits":      {yes, status("inmigrate"), false, false},
		"QEMU ended at once":          {"", "", false, true},
		"QEMU ended then":             {yes, "", false, true},
		"refused and QEMU ended":      {no, "", false, true},
		"it ran and was down at once": {yes, status("shutdown"), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
			go func() {
				defer theirs.Close()
				_, _ = io.WriteString(theirs, greeting)
				for in := bufio.NewScanner(theirs); in.Scan(); {
					answer := yes
					switch {
					case strings.Contains(in.Text(), `"cont"`):
						answer = c.cont
					case strings.Contains(in.Text(), `"query-status"`):
						answer = c.status
					}
					if answer == "" {
						return
					}
					_, _ = io.WriteString(theirs, answer+"\n")
				}
			}()
			m := &machine{monitor: newMonitor(ours), down: make(chan struct{}), spec: hypervisor.Spec{State: os.Stdin}}
			m.qmp = raw.NewMonitor(m.monitor)
			if err := m.monitor.Connect(); err != nil {
				t.Fatal(err)
			}
			err := m.Start(t.Context())
			if (err == nil) != c.ok || !c.ok && errors.Is(err, hypervisor.ErrRan) != c.ran {
				t.Errorf("Start: %v", err)
			}
		})
	}
}
