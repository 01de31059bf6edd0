package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"capsem/core/api"
)

const (
	// saveRounds is how often each is timed; dirtyMB is what a VM has written to its memory before it is forked.
	saveRounds = 5
	dirtyMB    = 200
)

// save times suspending, going on, and forking.
func (b *bench) save(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	const name = "bench-save"
	var info api.SandboxInfo
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{Name: name, Cold: true}, nil); err != nil {
		return err
	}
	defer b.delete(ctx, name)
	dirty := fmt.Sprintf("head -c %d /dev/urandom > /dev/shm/dirty; sync", dirtyMB<<20)
	if err := b.api.call(ctx, http.MethodPost, "/exec/"+name, api.ExecRequest{Command: dirty}, nil); err != nil {
		return err
	}
	if err := b.api.call(ctx, http.MethodGet, "/info/"+name, nil, &info); err != nil {
		return err
	}
	var pauses, whole, children, suspends, resumes, stopped []float64
	for i := range saveRounds {
		p, w, c, err := b.forkOnce(ctx, info, fmt.Sprintf("bench-%d", i))
		if err != nil {
			return err
		}
		pauses, whole, children = append(pauses, p), append(whole, w), append(children, c)
	}
	for range saveRounds {
		s, err := b.timedCall(ctx, "/suspend/"+name, nil)
		if err != nil {
			return err
		}
		r, err := b.timedCall(ctx, "/resume/"+name, nil)
		if err != nil {
			return err
		}
		suspends, resumes = append(suspends, s), append(resumes, r)
	}
	if _, err := b.timedCall(ctx, "/stop/"+name, nil); err != nil {
		return err
	}
	for range saveRounds {
		s, err := b.timedCall(ctx, "/fork/"+name, api.ForkRequest{Image: "bench-stopped"})
		if err != nil {
			return err
		}
		b.deleteImage(ctx, "bench-stopped")
		stopped = append(stopped, s)
	}
	b.add(
		newRow("fork of a running VM: parent's pause", "ms", pauses).held(AtMost, 250).noted("%d MB written in the guest, 2 GB of RAM; the second and later forks too.", dirtyMB),
		newRow("fork of a running VM: image complete", "ms", whole),
		newRow("fork of a running VM: child's first reply", "ms", children).held(AtMost, 1000).noted("POST /provision of the image and one /exec of true."),
		newRow("suspend", "ms", suspends).noted("The same VM; durable and verified."),
		newRow("resume", "ms", resumes),
		newRow("fork of a stopped VM", "ms", stopped).held(AtMost, 60),
	)
	return nil
}

// forkOnce forks a running VM and has a child of it answer.
func (b *bench) forkOnce(ctx context.Context, parent api.SandboxInfo, image string) (pause, whole, child float64, err error) {
	whole, err = b.timedCall(ctx, "/fork/"+parent.ID, api.ForkRequest{Image: image})
	if err != nil {
		return 0, 0, 0, err
	}
	defer b.deleteImage(ctx, image)
	pause, err = lastPause(filepath.Join(parent.Dir, "process.log"))
	if err != nil {
		return 0, 0, 0, err
	}
	child, err = b.childOf(ctx, image)
	return pause, whole, child, err
}

// childOf is how long a VM of an image takes to answer its first command.
func (b *bench) childOf(ctx context.Context, image string) (float64, error) {
	var reply api.ProvisionReply
	began := time.Now()
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{Image: image}, &reply); err != nil {
		return 0, err
	}
	defer b.delete(ctx, reply.ID)
	err := b.api.call(ctx, http.MethodPost, "/exec/"+reply.ID, api.ExecRequest{Argv: []string{"true"}}, nil)
	return millis(time.Since(began)), err
}

// lastPause is how long a VM stood still for its last fork, as its worker's log says.
func lastPause(path string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	var last float64
	for line := range strings.Lines(string(text)) {
		var entry struct {
			Msg   string
			Pause time.Duration
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "forked" {
			last = millis(entry.Pause)
		}
	}
	if last == 0 {
		return 0, errors.New("the worker's log tells of no fork")
	}
	return last, nil
}

func (b *bench) timedCall(ctx context.Context, path string, in any) (float64, error) {
	began := time.Now()
	err := b.api.call(ctx, http.MethodPost, path, in, nil)
	return millis(time.Since(began)), err
}

func (b *bench) deleteImage(ctx context.Context, name string) {
	if err := b.api.call(ctx, http.MethodDelete, "/images/"+url.PathEscape(name), nil, nil); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}
