package service

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"

	"capsem/core/api"
	"capsem/core/assets"
	"capsem/core/fault"
	"capsem/core/paths"
)

// assetVersion returns what tells the asset set of new VMs. The first call makes sure that its guest programs are those of this
// binary; where that fails, a set that is there is used as it is.
func assetVersion(ctx context.Context, home paths.Home, log *slog.Logger) func() (string, error) {
	var mu sync.Mutex
	fresh := false
	return func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if !fresh {
			changed, err := assets.Refresh(ctx, home, runtime.GOARCH, log)
			if err != nil {
				log.Warn("cannot renew the guest's programs", "error", err)
			}
			fresh = err == nil
			debug.FreeOSMemory() // the guest's programs were unpacked to compare them; the daemon has no further use for that memory
			if changed {
				log.Info("the guest's programs were renewed")
			}
		}
		set, err := assets.Current(home, runtime.GOARCH)
		if fault.Is(err, fault.NotFound) { // what is missing is not what the request named
			_, message, hint := fault.Public(err)
			return "", fault.Wrap(err, fault.Unavailable, "%s", message).WithHint("%s", hint)
		}
		if err != nil {
			return "", err //nolint:wrapcheck // a fault
		}
		return set.Version, nil
	}
}

func assetHealth(home paths.Home) func() api.AssetHealth {
	return func() api.AssetHealth { return assets.Health(home, runtime.GOARCH) }
}
