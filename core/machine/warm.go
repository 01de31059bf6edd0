package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"capsem/core/hypervisor"
	"capsem/core/machine/disk"
	"capsem/core/proto"
	"capsem/core/template"
)

// warmTime is how long a VM may take to answer that goes on from a template; then it boots. Most take a third of a second.
const warmTime = 20 * time.Second

// Cmdline is what the kernel of every VM is told, given the type of its root image.
func Cmdline(rootFSType string) string { return kernelWords + " capsem.rootfs=" + rootFSType }

// Want is what a template must have been made of to be of use to a VM.
func Want(spec *proto.VMSpec, rootFSType string, accelerator hypervisor.Accelerator, host string) template.Want {
	return template.Want{
		AssetVersion: spec.AssetVersion, Cmdline: Cmdline(rootFSType), CPUs: spec.CPUs, MemoryMB: spec.MemoryMB, DiskMB: spec.DiskMB,
		Accelerator: string(accelerator), Host: host,
	}
}

// warm is a template in use: what a VM goes on from instead of booting.
type warm struct {
	ram, state *os.File
}

func (m *warm) close() {
	if m != nil {
		_ = m.state.Close() // only read
	}
}

// mayBeWarm reports whether the VM may start from a template: it has one, and no disk of its own yet.
func (w *Worker) mayBeWarm() bool {
	if w.cfg.RAM == nil || w.cold {
		return false
	}
	_, err := os.Lstat(w.dirNow().SystemDisk())
	return errors.Is(err, fs.ErrNotExist)
}

// systemDisk opens the VM's disk, making it of the template's where there is one that fits.
func (w *Worker) systemDisk(ctx context.Context, p *parts) error {
	var err error
	if p.tryWarm {
		if p.warm, err = w.thaw(); err != nil {
			w.cold = true
			w.log.Warn("the template is of no use; booting", "error", err)
		}
	}
	p.system, err = disk.Open(ctx, w.cfg.Home, w.dirNow(), w.spec.DiskMB, w.cfg.DiskFormat)
	return err //nolint:wrapcheck // says what it did
}

// thaw finds the template and copies its disk.
func (w *Worker) thaw() (*warm, error) {
	w.board.step("starting from a template")
	t, err := template.Find(w.cfg.Home, w.want)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	state, err := t.Open(template.StateFile)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	if err := t.CopyDisk(w.dirNow().SystemDisk()); err != nil {
		return nil, errors.Join(err, state.Close())
	}
	if err := furnish(t, w.dirNow().Workspace()); err != nil {
		w.log.Warn("the workspace lacks what the image has in its place", "error", err)
	}
	return &warm{ram: w.cfg.RAM, state: state}, nil
}

// goCold gives a start from a template up that failed: the VM boots, with a new disk.
func (w *Worker) goCold(why error) {
	w.log.Warn("the VM cannot go on from its template; booting", "error", why)
	w.cold = true
	if err := os.Remove(w.dirNow().SystemDisk()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Error("cannot remove a disk", "error", err)
	}
	w.board.update(func(st *proto.WorkerStatus) { st.Warm = false })
}

// warmStages is the timing of a start from a template: what the guest reports is how the template booted.
func warmStages(started time.Time) []proto.BootStage {
	return []proto.BootStage{{Name: "template", DurationUS: time.Since(started).Microseconds()}}
}
