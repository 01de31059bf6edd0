package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"capsem/core/api"
)

const (
	// settleTime is what a guest gets after its start until it is idle, idleTime how long it is watched then.
	settleTime, idleTime = 20 * time.Second, 30 * time.Second
	// ticksPerSecond is USER_HZ, in which Linux counts what a process has used.
	ticksPerSecond = 100
)

// idleCPU is what idle VMs use of a processor.
func (b *bench) idleCPU(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	kinds := []struct {
		cpus  int
		limit float64
	}{{1, 1}, {4, 2}}
	infos := make([]api.SandboxInfo, len(kinds))
	for i, k := range kinds {
		var reply api.ProvisionReply
		if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{CPUs: k.cpus}, &reply); err != nil {
			return err
		}
		defer b.delete(ctx, reply.ID) //nolint:revive,gocritic // they all live until the end
		if err := b.api.call(ctx, http.MethodGet, "/info/"+reply.ID, nil, &infos[i]); err != nil {
			return err
		}
	}
	if err := pass(ctx, settleTime); err != nil {
		return err
	}
	used := make([]float64, len(kinds))
	for i := range kinds {
		used[i] = -cpuSeconds(infos[i])
	}
	if err := pass(ctx, idleTime); err != nil {
		return err
	}
	for i, k := range kinds {
		percent := (used[i] + cpuSeconds(infos[i])) / idleTime.Seconds() * 100
		b.add(newRow(fmt.Sprintf("idle VM with %d CPUs: processor used", k.cpus), "%", []float64{percent}).held(AtMost, k.limit).
			noted("QEMU and worker together, over %s, of one processor.", idleTime))
	}
	return nil
}

// pass waits.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

// cpuSeconds is what the processes of a VM have used.
func cpuSeconds(vm api.SandboxInfo) (total float64) {
	for _, pid := range []int{vm.PID, vm.HypervisorPID} {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, at := range []int{11, 12} { // utime and stime, counted from the state
			n, _ := strconv.ParseFloat(fields[at], 64)
			total += n / ticksPerSecond
		}
	}
	return total
}
