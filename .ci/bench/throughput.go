package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"capsem/core/api"
	"capsem/core/proto"
)

// bulk is how much output one sample moves, in bytes.
const bulk = 256 << 20

// throughput compares a command's standard output at the service's socket with what the link carries without worker and service.
func (b *bench) throughput(ctx context.Context) error {
	vm, err := b.vm(ctx)
	if err != nil {
		return err
	}
	spec, err := b.bareLike(ctx, &vm)
	if err != nil {
		return err
	}
	command := fmt.Sprintf("head -c %d /dev/zero", bulk)
	var ours []float64
	for range 4 {
		rate, err := measured(func() (int64, error) { return b.api.stream(ctx, vm.ID, api.ExecRequest{Command: command}) })
		if err != nil {
			return err
		}
		ours = append(ours, rate)
	}
	if err := b.dropVM(ctx); err != nil {
		return err
	}
	bare, _, err := spec.boot(ctx)
	if err != nil {
		return err
	}
	defer bare.close()
	var raw, direct []float64
	for range 4 {
		rate, err := measured(func() (int64, error) { return bare.rawStream(ctx) })
		if err != nil {
			return err
		}
		raw = append(raw, rate)
		rate, err = measured(func() (int64, error) { return bare.run(ctx, &proto.ExecRequest{ID: "bulk", Command: command}) })
		if err != nil {
			return err
		}
		direct = append(direct, rate)
	}
	b.add(
		newRow("stdout throughput", "MB/s", ours[1:]).against("raw link: one unframed stream from a guest process to the host", raw[1:]).
			held(RatioAtLeast, 0.7).noted("%d MiB of a command's output, read at the service's socket.", bulk>>20),
		newRow("stdout at the link", "MB/s", direct[1:]).against("raw link, as above", raw[1:]).
			noted("The same command, its frames read straight off the link: no worker, no service."),
	)
	return nil
}

// measured returns the rate of one transfer in MB/s (10^6 bytes).
func measured(transfer func() (int64, error)) (float64, error) {
	began := time.Now()
	n, err := transfer()
	if err == nil && n != bulk {
		err = fmt.Errorf("%d bytes came, %d were sent", n, bulk)
	}
	return float64(n) / 1e6 / time.Since(began).Seconds(), err
}

// rawStream has a process in the guest open a stream of the link and write to it; the agent splices, nothing frames or checks.
func (v *bareVM) rawStream(ctx context.Context) (int64, error) {
	listener, err := v.session.Listen(proto.PortNetwork)
	if err != nil {
		return 0, fmt.Errorf("listen on the link: %w", err)
	}
	defer listener.Close()
	var header bytes.Buffer
	if err := proto.WriteFrame(&header, proto.StreamHeader{Port: proto.PortNetwork, Process: "bench"}); err != nil {
		return 0, err
	}
	source := fmt.Sprintf(`import socket
s = socket.socket(socket.AF_UNIX)
s.connect("/run/capsem/link.sock")
s.sendall(bytes.fromhex("%s"))
block = bytes(1 << 20)
for _ in range(%d):
    s.sendall(block)
s.shutdown(socket.SHUT_WR)
s.recv(1)`, hex.EncodeToString(header.Bytes()), bulk>>20)
	done := make(chan error, 1)
	go func() {
		_, err := v.run(ctx, &proto.ExecRequest{ID: "source", Argv: []string{"python3", "-c", source}})
		done <- err
	}()
	stream, err := listener.Accept(ctx)
	if err != nil {
		return 0, fmt.Errorf("accept from the guest: %w", err)
	}
	n, err := io.CopyBuffer(io.Discard, io.LimitReader(stream, bulk), make([]byte, 256<<10))
	stream.Close()
	if err != nil {
		return n, fmt.Errorf("read the stream: %w", err)
	}
	return n, <-done
}
