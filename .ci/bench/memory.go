package main

import "context"

// memory records what each process keeps resident with one idle VM running.
func (b *bench) memory(ctx context.Context) error {
	info, err := b.vm(ctx)
	if err != nil {
		return err
	}
	guest, err := b.guestMemory(ctx)
	if err != nil {
		return err
	}
	b.add(newRow("guest memory in use", "MB", []float64{guest}).
		noted("MemTotal less MemAvailable in a guest of %d MB, nothing started by the user.", info.RAMMB))
	processes := []struct {
		name  string
		pid   int
		limit float64
	}{
		{"service RSS", b.service, 35},
		{"worker RSS", info.PID, 35},
		{"QEMU RSS", info.HypervisorPID, 0},
	}
	for _, p := range processes {
		mb, err := rssMB(p.pid)
		if err != nil {
			return err
		}
		r := newRow(p.name, "MB", []float64{mb}).noted("One VM of %d MB.", info.RAMMB)
		if p.limit > 0 {
			r = r.held(AtMost, p.limit)
		}
		b.add(r)
	}
	return nil
}
