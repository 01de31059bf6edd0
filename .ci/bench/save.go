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
	"capsem/core/template"
)

// saveRounds is how often each is timed at each size; the sizes are what a VM has written to its memory before, in MB.
const saveRounds = 3

var dirtySizes = []int{0, 50, 200, 400}

// limitedDirty is the size at which forking has limits.
const limitedDirty = 200

// save times suspending, going on, and forking, by the memory in use.
func (b *bench) save(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	plain, err := b.plainSaves(ctx)
	if err != nil {
		return err
	}
	const name = "bench-save"
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{Name: name, Cold: true}, nil); err != nil {
		return err
	}
	defer b.delete(ctx, name)
	for _, mb := range dirtySizes {
		if err := b.saveAt(ctx, name, mb, plain); err != nil {
			return err
		}
	}
	return b.forkStopped(ctx, name)
}

// saveAt times all with that much written; plain is what QEMU alone takes at limitedDirty.
func (b *bench) saveAt(ctx context.Context, name string, mb int, plain []float64) error {
	var info api.SandboxInfo
	write := fmt.Sprintf("head -c %d /dev/urandom > /dev/shm/dirty; sync", mb<<20)
	if err := b.api.call(ctx, http.MethodPost, "/exec/"+name, api.ExecRequest{Command: write}, nil); err != nil {
		return err
	}
	if err := b.api.call(ctx, http.MethodGet, "/info/"+name, nil, &info); err != nil {
		return err
	}
	var pauses, whole, children, sizes, memory, suspends, resumes []float64
	for i := range saveRounds {
		f, err := b.forkOnce(ctx, info, fmt.Sprintf("bench-%d-%d", mb, i))
		if err != nil {
			return err
		}
		pauses, whole, children, sizes = append(pauses, f.pause), append(whole, f.whole), append(children, f.child), append(sizes, f.size)
		memory = append(memory, f.memory)
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
	at := fmt.Sprintf("%d MB written: ", mb)
	pause, child := newRow(at+"fork, parent's pause", "ms", pauses), newRow(at+"fork, child's first reply", "ms", children)
	suspend := newRow(at+"suspend", "ms", suspends)
	if mb == limitedDirty {
		const baseline = "bare QEMU with as much written: stop, and migrate all of it to a file"
		pause, suspend = pause.against(baseline, plain), suspend.against(baseline, plain)
		pause = pause.held(AtMost, 250).noted("In the guest's memory, of 2 GB; the first, the second and the third fork.")
		child = child.held(AtMost, 1000).noted("POST /provision of the image and one /exec of true.")
	}
	b.add(pause, newRow(at+"second fork, parent's pause", "ms", pauses[1:2]), newRow(at+"fork, image complete", "ms", whole), child,
		newRow(at+"second fork, child's first reply", "ms", children[1:2]), newRow(at+"fork, image on disk", "MB", sizes),
		newRow(at+"fork, child's memory", "MB", memory).noted("All private pages of its QEMU, TCG's code cache among them."),
		suspend, newRow(at+"resume", "ms", resumes))
	return nil
}

// plainSaves times the saving of a VM of the default size by QEMU alone.
func (b *bench) plainSaves(ctx context.Context) ([]float64, error) {
	model, err := b.warmVM(ctx)
	if err != nil {
		return nil, err
	}
	defer b.delete(ctx, model.ID)
	tpl, err := b.template()
	if err != nil {
		return nil, err
	}
	spec, err := restoreLike(model.HypervisorPID, tpl, b.home.AssetVersion(model.Version), filepath.Join(b.tmp, template.DiskFile))
	if err != nil {
		return nil, err
	}
	var all []float64
	for range saveRounds {
		took, err := spec.saved(ctx, limitedDirty, filepath.Join(b.tmp, "saved"))
		if err != nil {
			return nil, err
		}
		all = append(all, millis(took))
	}
	return all, nil
}

// forkStopped times the fork of a stopped VM with a workspace of ten files.
func (b *bench) forkStopped(ctx context.Context, name string) error {
	if _, err := b.timedCall(ctx, "/stop/"+name, nil); err != nil {
		return err
	}
	var info api.SandboxInfo
	if err := b.api.call(ctx, http.MethodGet, "/info/"+name, nil, &info); err != nil {
		return err
	}
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(info.Dir, "workspace", fmt.Sprint("file", i)), make([]byte, 10_000), 0o600); err != nil {
			return fmt.Errorf("fill workspace: %w", err)
		}
	}
	var stopped []float64
	for range saveRounds {
		s, err := b.timedCall(ctx, "/fork/"+name, api.ForkRequest{Image: "bench-stopped"})
		if err != nil {
			return err
		}
		b.deleteImage(ctx, "bench-stopped")
		stopped = append(stopped, s)
	}
	b.add(newRow("fork of a stopped VM", "ms", stopped).held(AtMost, 60).noted("Its workspace has ten files."))
	return nil
}

// forked is what one fork took: times in ms, the image's size on disk and the child's memory in MB.
type forked struct{ pause, whole, child, size, memory float64 }

// forkOnce forks a running VM and has a child of it answer.
func (b *bench) forkOnce(ctx context.Context, parent api.SandboxInfo, image string) (f forked, err error) {
	var img api.Image
	began := time.Now()
	if err := b.api.call(ctx, http.MethodPost, "/fork/"+parent.ID, api.ForkRequest{Image: image}, &img); err != nil {
		return f, err
	}
	f.whole, f.size = millis(time.Since(began)), float64(img.SizeBytes)/1e6
	defer b.deleteImage(ctx, image)
	if f.pause, err = lastPause(filepath.Join(parent.Dir, "process.log")); err != nil {
		return f, err
	}
	f.child, f.memory, err = b.childOf(ctx, image)
	return f, err
}

// childOf is how long a VM of an image takes to answer its first command, and the memory that it has then.
func (b *bench) childOf(ctx context.Context, image string) (took, memory float64, err error) {
	var reply api.ProvisionReply
	began := time.Now()
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{Image: image}, &reply); err != nil {
		return 0, 0, err
	}
	defer b.delete(ctx, reply.ID)
	err = b.api.call(ctx, http.MethodPost, "/exec/"+reply.ID, api.ExecRequest{Argv: []string{"true"}}, nil)
	took = millis(time.Since(began))
	var info api.SandboxInfo
	if err == nil {
		err = b.api.call(ctx, http.MethodGet, "/info/"+reply.ID, nil, &info)
	}
	if err != nil {
		return 0, 0, err
	}
	guest, other, err := privateMB(info.HypervisorPID)
	return took, guest + other, err
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
	return b.timed(ctx, http.MethodPost, path, in, nil)
}

func (b *bench) timed(ctx context.Context, method, path string, in, out any) (float64, error) {
	began := time.Now()
	err := b.api.call(ctx, method, path, in, out)
	return millis(time.Since(began)), err
}

func (b *bench) deleteImage(ctx context.Context, name string) {
	if err := b.api.call(ctx, http.MethodDelete, "/images/"+url.PathEscape(name), nil, nil); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}
