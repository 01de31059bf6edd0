package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// guestDoctor is the program in the guest that makes its checks: one JSON line each.
const guestDoctor = "/run/capsem/bin/doctor"

// guest starts a temporary VM, has it checked from inside, and checks the ways in and that nothing of it stays.
func (d *diagnosis) guest(ctx context.Context) {
	svc, err := d.s.client()
	if err != nil {
		d.add("VM", "", err)
		return
	}
	reply, err := d.s.provision(ctx, svc, api.ProvisionRequest{})
	if err != nil {
		d.add("VM", "", err)
		return
	}
	info, err := svc.Info(ctx, reply.ID)
	d.add("VM", fmt.Sprintf("booted in %.1f s, %s, link over %s", float64(info.BootMS)/1000, info.Accelerator, info.Carrier), err)
	within(ctx, func(ctx context.Context) { d.inside(ctx, svc, reply.ID) })
	within(ctx, func(ctx context.Context) { d.add("files", "64 KiB in and out", roundTrip(ctx, svc, reply.ID)) })
	within(ctx, func(ctx context.Context) {
		d.add("terminal", "a command typed into it was run", typed(ctx, svc, reply.ID))
	})
	err = d.s.discard(ctx, svc, reply.ID)
	if err == nil && info.Dir != "" {
		if _, statErr := os.Lstat(info.Dir); !errors.Is(statErr, os.ErrNotExist) {
			err = fault.New(fault.Internal, "%s is still there", info.Dir).WithHint("capsem purge")
		}
	}
	d.add("gone afterwards", "the VM left nothing behind", err)
}

func within(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	f(ctx)
}

// inside runs the guest's own checks through exec.
func (d *diagnosis) inside(ctx context.Context, svc *client.Client, id string) {
	reply, err := svc.Exec(ctx, id, api.ExecRequest{Argv: []string{guestDoctor, "--json"}})
	if err != nil {
		d.add("exec", "", err)
		return
	}
	found := 0
	for line := range strings.Lines(reply.Stdout) {
		var c check
		if err := json.Unmarshal([]byte(line), &c); err != nil || c.Name == "" {
			continue
		}
		found++
		d.report(check{Name: c.Name, OK: c.OK, Detail: c.Detail, Hint: c.Hint})
	}
	if found == 0 {
		d.add("exec", "", fault.New(fault.Internal, "the guest's checks did not run (exit code %d): %s", reply.ExitCode, lastLine(reply.Stderr+reply.Error)).
			WithHint("capsem assets build puts the current guest programs into the image"))
		return
	}
	d.add("exec", fmt.Sprintf("%d checks from inside", found), nil)
}

// roundTrip writes a file into the guest and reads it back.
func roundTrip(ctx context.Context, svc *client.Client, id string) error {
	const name = "/tmp/capsem-doctor"
	want := make([]byte, 64<<10)
	_, _ = rand.Read(want) // never fails
	if _, err := svc.WriteFile(ctx, id, name, 0o600, bytes.NewReader(want)); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	content, err := svc.ReadFile(ctx, id, name)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	got, err := io.ReadAll(io.LimitReader(content, int64(len(want))+1))
	if err := errors.Join(err, content.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fault.New(fault.Internal, "a file came back altered (%d of %d bytes)", len(got), len(want))
	}
	return nil
}

// typed types a command into a terminal of the VM and waits for what only running it can print.
func typed(ctx context.Context, svc *client.Client, id string) error {
	reply, err := svc.Terminal(ctx, id)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	worker, err := workerclient.Dial(ctx, reply.UDSPath)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	conn, err := worker.Stream(ctx, proto.WorkerRequest{
		Op: proto.OpTerminal, Terminal: &proto.TerminalOpen{Session: "doctor", Size: proto.WindowSize{Cols: 80, Rows: 24}},
	})
	if err != nil {
		return errors.Join(err, worker.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	const command, answer = "printf 'capsem-%s-%d\\n' typed $((6*7)); exit\n", "capsem-typed-42"
	if err := proto.WriteStreamFrame(conn, proto.KindStdin, []byte(command)); err != nil {
		return fmt.Errorf("type into the terminal: %w", err)
	}
	var seen bytes.Buffer
	for frames := proto.NewStreamReader(conn); ; {
		kind, data, err := frames.Next()
		if err != nil {
			return fault.Wrap(err, fault.Unavailable, "the terminal did not answer: %s", lastLine(seen.String()))
		}
		switch kind {
		case proto.KindStdout:
			seen.Write(data)
			if bytes.Contains(seen.Bytes(), []byte(answer)) {
				return nil
			}
			seen.Next(max(0, seen.Len()-proto.MaxChunk))
		case proto.KindError:
			return streamFault(data)
		case proto.KindExit:
			return fault.New(fault.Internal, "the shell ended without running what was typed: %s", lastLine(seen.String()))
		default: // nothing to look at
		}
	}
}
