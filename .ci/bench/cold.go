package main

import (
	"context"
	"net/http"
	"time"
)

// cold compares a whole "capsem run true", and a VM up to its first answer, with the same guest under bare QEMU.
func (b *bench) cold(ctx context.Context) error {
	vm, err := b.vm(ctx)
	if err != nil {
		return err
	}
	spec, err := b.bareLike(ctx, &vm)
	if err != nil {
		return err
	}
	if err := b.dropVM(ctx); err != nil { // nothing else runs while boots are timed
		return err
	}
	var whole, answer, bare []float64
	for range 5 {
		began := time.Now()
		if _, err := b.cli(ctx, "run", "--cold", "true"); err != nil {
			return err
		}
		whole = append(whole, millis(time.Since(began)))
		took, err := b.firstAnswer(ctx)
		if err != nil {
			return err
		}
		answer = append(answer, millis(took))
		alone, took, err := spec.boot(ctx)
		if err != nil {
			return err
		}
		alone.close()
		bare = append(bare, millis(took))
	}
	const baseline = "bare QEMU, same machine, kernel, initrd, root image and command line, formatted disk, up to the first command's exit"
	b.add(
		newRow("cold capsem run true", "ms", whole).against(baseline, bare).held(RatioAtMost, 1.15).
			noted("CLI from fork to exit with the service running: boots, runs, destroys."),
		newRow("cold VM to first answer", "ms", answer).against(baseline, bare).
			noted("POST /provision and one /exec of true."),
	)
	return nil
}

// firstAnswer provisions a VM, runs one command in it and deletes it; the time is up to the command's answer.
func (b *bench) firstAnswer(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if _, err := b.vm(ctx); err != nil {
		return 0, err
	}
	if _, _, err := b.execOnce(ctx); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, b.dropVM(ctx)
}

// dropVM deletes the shared VM; the next benchmark that needs one makes another.
func (b *bench) dropVM(ctx context.Context) error {
	id := b.vmID
	b.vmID = ""
	return b.api.call(ctx, http.MethodDelete, "/delete/"+id, nil, nil)
}
