package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"capsem/core/api"
	"capsem/core/proto"
)

// guestEcho is what the measuring program in the guest says.
type guestEcho struct{ Rate, P50, P99 float64 }

// guestCalls is how many calls each case makes in a guest.
const guestCalls = "1000"

// mcpVM measures echo from a guest through capsem-mcp-server, the worker, the aggregator and the built-in server, beside a raw echo over
// the link of a VM like it, and what the three processes on the host keep resident.
func (b *bench) mcpVM(ctx context.Context) error {
	program := filepath.Join(b.tmp, "guestmcp")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./.ci/bench/guestmcp")
	build.Dir, build.Env = b.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	vm, err := b.vm(ctx)
	if err != nil {
		return err
	}
	if _, err := b.cli(ctx, "cp", program, vm.ID+":guestmcp"); err != nil {
		return err
	}
	through, raw := map[int]guestEcho{}, map[int]guestEcho{}
	for _, n := range []int{1, 10} {
		var reply api.ExecReply
		err := b.api.call(ctx, http.MethodPost, "/exec/"+vm.ID, api.ExecRequest{Argv: []string{"/root/guestmcp", "mcp", guestCalls, strconv.Itoa(n)}}, &reply)
		if err == nil {
			through[n], err = echoOf(reply.Stdout)
		}
		if err != nil {
			return fmt.Errorf("echo in the guest: %w: %s", err, reply.Stderr)
		}
	}
	if err := b.mcpMemory(vm.PID); err != nil {
		return err
	}
	spec, err := b.bareLike(ctx, &vm)
	if err == nil {
		err = b.dropVM(ctx)
	}
	if err != nil {
		return err
	}
	bare, _, err := spec.boot(ctx)
	if err != nil {
		return err
	}
	defer bare.close()
	if err := bare.put(ctx, program, "guestmcp"); err != nil {
		return err
	}
	for _, n := range []int{1, 10} {
		if raw[n], err = bare.rawEcho(ctx, n); err != nil {
			return err
		}
		t := through[n]
		r := row{Name: fmt.Sprintf("MCP echo from a guest, %d in flight", n), Unit: "calls/s", N: 1000, Median: t.Rate}
		b.add(r.against("raw echo of the same lines over the link", []float64{raw[n].Rate}).
			noted("p50 %.2f ms, p99 %.2f ms; raw p50 %.2f ms, p99 %.2f ms.", t.P50, t.P99, raw[n].P50, raw[n].P99))
	}
	return nil
}

func echoOf(text string) (e guestEcho, err error) {
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return e, fmt.Errorf("read what was measured: %w: %.200s", err, text)
	}
	return e, nil
}

// mcpMemory records what the processes that serve a VM's MCP keep resident.
func (b *bench) mcpMemory(worker int) error {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", worker))
	if err != nil {
		return fmt.Errorf("find processes: %w", err)
	}
	pids := map[string]int{"worker": worker}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for child := range strings.FieldsSeq(string(text)) {
			line, _ := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			if name, _, _ := strings.Cut(string(line), "\x00"); strings.HasPrefix(name, "capsem-mcp-") {
				pids[strings.TrimPrefix(name, "capsem-mcp-")], _ = strconv.Atoi(child)
			}
		}
	}
	for _, name := range []string{"worker", "aggregator", "builtin"} {
		if pids[name] == 0 {
			return fmt.Errorf("no %s runs", name)
		}
		own, err := statusMB(pids[name], "RssAnon")
		if err != nil {
			return err
		}
		all, err := statusMB(pids[name], "VmRSS")
		if err != nil {
			return err
		}
		b.add(newRow("MCP of a VM: "+name+", memory of its own", "MB", []float64{own}).noted("RSS with pages of the program that all share: %.1f MB. After 2,500 calls.", all))
	}
	return nil
}

// put writes a program into the guest's home.
func (v *bareVM) put(ctx context.Context, from, name string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("put a program: %w", err)
	}
	st, err := v.agent.File(ctx, &proto.FileRequest{Op: proto.FileWriteOp, Path: name, Mode: 0o755})
	if err != nil {
		return fmt.Errorf("put a program: %w", err)
	}
	defer st.Close()
	for {
		n := min(len(text), proto.MaxChunk)
		if err := proto.WriteStreamFrame(st, proto.KindData, text[:n]); err != nil {
			return fmt.Errorf("put a program: %w", err)
		}
		if n == 0 {
			break
		}
		text = text[n:]
	}
	kind, data, err := proto.NewStreamReader(st).Next()
	if err != nil || kind != proto.KindResult {
		return fmt.Errorf("put a program: %w: %s", errors.Join(err, errors.New("no result")), data)
	}
	return nil
}

// rawEcho has a process in the guest open a stream of the link, and sends back what comes.
func (v *bareVM) rawEcho(ctx context.Context, inFlight int) (e guestEcho, err error) {
	listener, err := v.session.Listen(proto.PortNetwork)
	if err != nil {
		return e, fmt.Errorf("listen on the link: %w", err)
	}
	defer listener.Close()
	var header bytes.Buffer
	if err := proto.WriteFrame(&header, proto.StreamHeader{Port: proto.PortNetwork, Process: "bench"}); err != nil {
		return e, err
	}
	go func() {
		stream, err := listener.Accept(ctx)
		if err != nil {
			return // the program says that it has no answer
		}
		defer stream.Close()
		_, _ = io.Copy(stream, stream) // as above
	}()
	stream, err := v.agent.Exec(ctx, &proto.ExecRequest{ID: "echo", Argv: []string{"/root/guestmcp", "raw", guestCalls, strconv.Itoa(inFlight), hex.EncodeToString(header.Bytes())}})
	if err != nil {
		return e, fmt.Errorf("exec: %w", err)
	}
	defer stream.Close()
	var out bytes.Buffer
	if _, err := copyStdout(&out, stream); err != nil {
		return e, fmt.Errorf("raw echo: %w", err)
	}
	return echoOf(out.String())
}
