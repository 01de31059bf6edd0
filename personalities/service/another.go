package service

import (
	"context"
	"fmt"
	"time"

	"capsem/core/buildinfo"
	"capsem/core/client"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/paths"
)

// answerTime is how long a service that holds the lock may take until it answers: it takes over running VMs first.
const answerTime = 15 * time.Second

// another is what a service does that is not the first: it ends, well where the first is of the same version. One that was
// just killed may hold the lock a moment longer; then the lock is taken over and returned.
func another(ctx context.Context, env entry.Env, home paths.Home) (*guard.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c := client.New(home, client.Options{Getenv: env.Getenv})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := c.Version(ctx)
		if err == nil && v.Version == buildinfo.Version {
			fmt.Fprintf(env.Stdout, "the service runs already, pid %d\n", v.PID)
			return nil, nil //nolint:nilnil // no lock is needed: all is well
		}
		if err == nil {
			return nil, fault.New(fault.Conflict, "a service of version %s runs already (pid %d), and this is %s", v.Version, v.PID, buildinfo.Version).
				WithHint("capsem service stop, then start this one; VMs keep running")
		}
		if lock, err := guard.Acquire(home.ServiceLock()); err == nil {
			return lock, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			pid, _, _ := guard.Holder(home.ServiceLock()) // 0 where it cannot be told
			return nil, fault.Wrap(err, fault.Unavailable, "process %d holds %s and does not answer", pid, home.ServiceLock()).
				WithHint("see %s", home.ServiceLog())
		}
	}
}
