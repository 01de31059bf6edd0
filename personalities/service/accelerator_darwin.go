package service

import (
	"context"
	"log/slog"
	"sync"

	"capsem/core/paths"
)

// accelerator tells the verdict, which needs no proof here.
func accelerator(context.Context, paths.Home, *slog.Logger, *sync.WaitGroup) func() string {
	return func() string { return "hvf (Virtualization.framework)" }
}
