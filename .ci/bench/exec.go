package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"capsem/core/api"
)

// execOnce runs "true" by the buffered route and returns the whole time and that of it which is not the guest's own, in ms.
func (b *bench) execOnce(ctx context.Context) (whole, overhead float64, err error) {
	var reply api.ExecReply
	began := time.Now()
	err = b.api.call(ctx, http.MethodPost, "/exec/"+b.vmID, api.ExecRequest{Argv: []string{"true"}}, &reply)
	took := time.Since(began)
	if err == nil && reply.ExitCode != 0 {
		err = fmt.Errorf("true ended with %d", reply.ExitCode)
	}
	return millis(took), millis(took - time.Duration(reply.DurationUS)*time.Microsecond), err
}

// execRoundTrip measures one command after another over one kept-alive connection.
func (b *bench) execRoundTrip(ctx context.Context) error {
	if _, err := b.vm(ctx); err != nil {
		return err
	}
	var whole, overhead []float64
	for i := range 220 {
		w, o, err := b.execOnce(ctx)
		if err != nil {
			return err
		}
		if i >= 20 { // the guest translates and caches its code first
			whole, overhead = append(whole, w), append(overhead, o)
		}
	}
	b.add(
		newRow("exec round trip", "ms", whole).noted("POST /exec with argv [true], one kept-alive connection."),
		newRow("exec, capsem's share", "ms", overhead).held(AtMost, 3).
			noted("The same without the guest's own time from fork to reaping."),
	)
	return nil
}

// execMany measures 50 commands started at the same moment.
func (b *bench) execMany(ctx context.Context) error {
	if _, err := b.vm(ctx); err != nil {
		return err
	}
	const many = 50
	var rounds, alone, each []float64
	for range 5 {
		began := time.Now()
		for range many {
			if _, _, err := b.execOnce(ctx); err != nil {
				return err
			}
		}
		alone = append(alone, millis(time.Since(began)))
		began = time.Now()
		took, err := b.atOnce(ctx, many)
		if err != nil {
			return err
		}
		rounds, each = append(rounds, millis(time.Since(began))), append(each, took...)
	}
	b.add(
		newRow("exec, 50 at once: all done", "ms", rounds).against("the same 50 one after another", alone),
		newRow("exec, 50 at once: each", "ms", each),
	)
	return nil
}

// atOnce runs n commands concurrently and returns the time of each.
func (b *bench) atOnce(ctx context.Context, n int) ([]float64, error) {
	var (
		wg    sync.WaitGroup
		times = make([]float64, n)
		errs  = make([]error, n)
	)
	for i := range n {
		wg.Go(func() { times[i], _, errs[i] = b.execOnce(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}

// guestMemory asks the guest how much it uses at rest.
func (b *bench) guestMemory(ctx context.Context) (float64, error) {
	var reply api.ExecReply
	if err := b.api.call(ctx, http.MethodPost, "/exec/"+b.vmID, api.ExecRequest{Command: "cat /proc/meminfo"}, &reply); err != nil {
		return 0, err
	}
	kib := map[string]float64{}
	for line := range strings.Lines(reply.Stdout) {
		var name string
		var value float64
		if _, err := fmt.Sscan(line, &name, &value); err == nil {
			kib[name] = value
		}
	}
	total, available := kib["MemTotal:"], kib["MemAvailable:"]
	if total == 0 || available == 0 {
		return 0, fmt.Errorf("unexpected meminfo %.80q", reply.Stdout)
	}
	return (total - available) * 1024 / 1e6, nil
}
