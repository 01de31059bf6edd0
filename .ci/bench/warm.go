package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"capsem/core/api"
	"capsem/core/template"
)

// warmRounds is how often a warm start is timed.
const warmRounds = 15

// warm compares starts from a template with QEMU restoring the same state alone.
func (b *bench) warm(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	if b.vmID != "" { // nothing else runs while starts are timed
		if err := b.dropVM(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := b.api.call(ctx, http.MethodPost, "/templates/rebuild", api.RebuildTemplateRequest{}, nil); err != nil {
		return err
	}
	b.add(newRow("making a template", "ms", []float64{millis(time.Since(began))}))
	model, err := b.warmVM(ctx)
	if err != nil {
		return err
	}
	defer b.delete(ctx, model.ID)
	tpl, err := b.template()
	if err != nil {
		return err
	}
	spec, err := restoreLike(model.HypervisorPID, tpl, b.home.AssetVersion(model.Version), filepath.Join(b.tmp, template.DiskFile))
	if err != nil {
		return err
	}
	var whole, answer, ready, bare []float64
	for range warmRounds {
		if err := b.warmRound(ctx, spec, &whole, &answer, &ready, &bare); err != nil {
			return err
		}
	}
	const baseline = "bare QEMU restoring the same state, up to the first command's exit"
	b.add(
		newRow("warm capsem run true", "ms", whole).against(baseline, bare).noted("CLI from fork to exit with the service running: starts, runs, destroys."),
		newRow("warm VM to first answer", "ms", answer).against(baseline, bare).held(RatioAtMost, 1.4).
			noted("POST /provision and one /exec of true; teardown apart."),
		newRow("warm create to ready", "ms", ready).against(baseline, bare).held(AtMost, 250).noted("POST /provision."),
	)
	return b.clones(ctx)
}

func (b *bench) warmRound(ctx context.Context, spec *restoreSpec, whole, answer, ready, bare *[]float64) error {
	began := time.Now()
	if _, err := b.cli(ctx, "run", "true"); err != nil {
		return err
	}
	*whole = append(*whole, millis(time.Since(began)))
	began = time.Now()
	vm, err := b.warmVM(ctx)
	if err != nil {
		return err
	}
	*ready = append(*ready, float64(vm.BootMS))
	b.vmID = vm.ID
	if _, _, err := b.execOnce(ctx); err != nil {
		return err
	}
	*answer = append(*answer, millis(time.Since(began)))
	if err := b.dropVM(ctx); err != nil {
		return err
	}
	took, err := spec.run(ctx)
	*bare = append(*bare, millis(took))
	return err
}

// warmVM makes a VM that must have started from the template.
func (b *bench) warmVM(ctx context.Context) (api.SandboxInfo, error) {
	var reply api.ProvisionReply
	var info api.SandboxInfo
	err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{}, &reply)
	if err == nil {
		err = b.api.call(ctx, http.MethodGet, "/info/"+reply.ID, nil, &info)
	}
	if err == nil && !info.Warm {
		err = errors.New("the VM booted instead of starting from its template")
	}
	return info, err
}

func (b *bench) delete(ctx context.Context, id string) {
	if err := b.api.call(ctx, http.MethodDelete, "/delete/"+id, nil, nil); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

func (b *bench) template() (*template.Template, error) {
	all, err := template.List(b.home)
	if err != nil || len(all) == 0 {
		return nil, errors.Join(err, errors.New("there is no template"))
	}
	return all[0], nil
}

// clones starts eight at once and looks at the memory that each has for itself.
func (b *bench) clones(ctx context.Context) error {
	const many = 8
	var wg sync.WaitGroup
	vms, errs := make([]api.SandboxInfo, many), make([]error, many)
	began := time.Now()
	for i := range many {
		wg.Go(func() { vms[i], errs[i] = b.warmVM(ctx) })
	}
	wg.Wait()
	took := millis(time.Since(began))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var guest, rest []float64
	for _, vm := range vms {
		ram, other, err := privateMB(vm.HypervisorPID)
		if err != nil {
			return err
		}
		guest, rest = append(guest, ram), append(rest, other)
		b.delete(ctx, vm.ID)
	}
	b.add(
		newRow("8 clones at once: all ready", "ms", []float64{took}),
		newRow("idle clone: guest memory of its own", "MB", guest).held(AtMost, 45).noted("Private pages of the template's mapping."),
		newRow("idle clone: QEMU's own memory", "MB", rest).noted("All other private pages, TCG's code cache among them."),
	)
	return nil
}

// privateMB is what a process has written: to the memory of its guest, and elsewhere.
func privateMB(pid int) (guest, other float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory map: %w", err)
	}
	ram := false
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.Contains(key, "-") { // a new mapping
			ram = strings.Contains(line, "capsem-ram")
		}
		if key != "Private_Dirty" {
			continue
		}
		kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read memory map: %w", err)
		}
		if ram {
			guest += kb / 1024
		} else {
			other += kb / 1024
		}
	}
	return guest, other, nil
}
