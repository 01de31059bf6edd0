package service

import (
	"context"
	"log/slog"
	"sync"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/qemu"
	"capsem/core/paths"
)

// accelerator proves in the background which accelerator works here, so that the first VM need not wait for it, and returns what
// tells the verdict.
func accelerator(ctx context.Context, home paths.Home, log *slog.Logger, background *sync.WaitGroup) func() string {
	var mu sync.Mutex
	verdict := "being proven"
	background.Go(func() {
		found, why, err := qemu.Resolve(ctx, home, hypervisor.Auto)
		text := string(found) + " (" + why + ")"
		if err != nil {
			text = "none: " + fault.Line(err)
		}
		log.Info("accelerator", "verdict", text)
		mu.Lock()
		defer mu.Unlock()
		verdict = text
	})
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return verdict
	}
}
