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
		name, field string
		pid         int
		limit       float64
	}{
		{"service, memory of its own", "RssAnon", b.service, 35},
		{"service RSS, with pages of the program that all share", "VmRSS", b.service, 0},
		{"worker, memory of its own", "RssAnon", info.PID, 35},
		{"worker RSS, with pages of the program that all share", "VmRSS", info.PID, 0},
		{"QEMU RSS", "VmRSS", info.HypervisorPID, 0},
	}
	for _, p := range processes {
		mb, err := statusMB(p.pid, p.field)
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
