//go:build vm

// Package vmtest holds the QEMU driver to the contract with real guests.
package vmtest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"capsem/core/guestlink"
	"capsem/core/hypervisor/hypervisortest"
	"capsem/core/link"
	"capsem/core/proto"
)

// guest is a real guest over the real link.
type guest struct{ *guestlink.Agent }

func attach(ctx context.Context, t *testing.T, carrier net.Conn) hypervisortest.Guest {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	session, err := link.Connect(ctx, carrier, log)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := guestlink.Attach(ctx, session, guestlink.Config{Log: log, Boot: proto.BootConfig{
		ID: "contract", Hostname: "contract", MachineID: strings.Repeat("0a", 16), Entropy: make([]byte, 32),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return guest{agent}
}

func (g guest) PowerOff(ctx context.Context) error { return g.Shutdown(ctx, 1000, false) }
func (g guest) Reboot(ctx context.Context) error   { return g.Shutdown(ctx, 1000, true) }

// Crash makes the kernel panic. Its answer never comes.
func (g guest) Crash(ctx context.Context) error {
	_, err := g.run(ctx, "echo c > /proc/sysrq-trigger")
	if err == nil {
		return errors.New("the guest has survived a panic")
	}
	return nil
}

// run returns a command's output.
func (g guest) run(ctx context.Context, command string) (string, error) {
	st, err := g.Exec(ctx, &proto.ExecRequest{Command: command})
	if err != nil {
		return "", err
	}
	defer st.Close()
	var out strings.Builder
	for frames := proto.NewStreamReader(st); ; {
		kind, data, err := frames.Next()
		if err != nil {
			return out.String(), errors.Join(err, io.ErrUnexpectedEOF)
		}
		switch kind {
		case proto.KindStdout, proto.KindStderr:
			out.Write(data)
		case proto.KindExit:
			return out.String(), nil
		}
	}
}
