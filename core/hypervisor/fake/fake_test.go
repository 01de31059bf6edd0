package fake

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"capsem/core/hypervisor"
	"capsem/core/hypervisor/hypervisortest"
)

// words is a guest that obeys single words, a line each.
func words(_ context.Context, carrier net.Conn, power Power) {
	lines := bufio.NewScanner(carrier)
	for lines.Scan() {
		switch lines.Text() {
		case "ping":
			if _, err := fmt.Fprintln(carrier, "pong"); err != nil {
				return
			}
		default:
			power(hypervisor.ExitReason(lines.Text()))
		}
	}
}

// guest speaks to words. Answers are read all the time: a pipe holds nothing.
type guest struct {
	net.Conn
	answers chan string
}

func attach(carrier net.Conn) guest {
	g := guest{carrier, make(chan string, 16)}
	go func() {
		lines := bufio.NewScanner(carrier)
		for lines.Scan() {
			g.answers <- lines.Text()
		}
	}()
	return g
}

func (g guest) say(ctx context.Context, word string) error {
	sent := make(chan error, 1)
	go func() {
		_, err := fmt.Fprintln(g.Conn, word)
		sent <- err
	}()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g guest) PowerOff(ctx context.Context) error {
	return g.say(ctx, string(hypervisor.GuestPoweroff))
}

func (g guest) Reboot(ctx context.Context) error { return g.say(ctx, string(hypervisor.GuestReboot)) }

func (g guest) Crash(ctx context.Context) error { return g.say(ctx, string(hypervisor.GuestPanic)) }

func (g guest) Ping(ctx context.Context) error {
	if err := g.say(ctx, "ping"); err != nil {
		return err
	}
	select {
	case answer := <-g.answers:
		if answer != "pong" {
			return errors.New("the guest says " + answer)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestContract(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hypervisortest.Contract(t, func(*testing.T) hypervisortest.Driver {
		return hypervisortest.Driver{
			Driver: New(Options{Guest: words}),
			Spec: func(*testing.T) hypervisor.Spec {
				return hypervisor.Spec{Name: "t", Arch: "amd64", CPUs: 1, MemoryMB: 256, Kernel: file, Initrd: file, Accelerator: hypervisor.TCG}
			},
			Attach: func(_ context.Context, _ *testing.T, carrier net.Conn) hypervisortest.Guest { return attach(carrier) },
		}
	})
}
