package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"capsem/core/assets"
	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/safesocket"
)

// Least free space under CAPSEM_HOME: enough for an image and a few VMs.
const leastFree = 4 << 30

// host makes the host's checks; it reports whether a VM is worth trying.
func (d *diagnosis) host(ctx context.Context, home paths.Home) (ready bool) {
	d.add("home", home.Dir(), checkPrivate(home.Dir(), true))
	free, err := freeSpace(home.Dir())
	if err == nil && free < leastFree {
		err = fault.New(fault.NoSpace, "only %s free under %s", byteSize(free), home.Dir()).WithHint("free some space; VMs and images need a few GB")
	}
	d.add("space", byteSize(free)+" free", err)
	_, err = config.Load(home)
	d.add("settings", "user.toml and corp.toml are well formed", err)
	hypervisor := d.hypervisor(ctx, home)
	health := assets.Health(home, runtime.GOARCH)
	err = nil
	if !health.Ready {
		err = fault.New(fault.Unavailable, "no usable image: %s is missing or altered", firstOr(health.Missing, "manifest.json")).WithHint("capsem assets build")
	}
	image := d.add("image", health.Version, err)
	service := d.service(ctx, home)
	return hypervisor && image && service
}

func firstOr(list []string, other string) string {
	if len(list) > 0 {
		return list[0]
	}
	return other
}

// service checks that the service runs, or starts, and that only its owner can talk to it.
func (d *diagnosis) service(ctx context.Context, home paths.Home) bool {
	svc, err := d.s.service(ctx)
	if err != nil {
		return d.add("service", "", err)
	}
	st, err := svc.Status(ctx)
	if !d.add("service", fmt.Sprintf("%s, pid %d, %d VMs running", st.Version, st.PID, st.Running), err) {
		return false
	}
	d.add("service socket", "only its owner may connect", checkPrivate(safesocket.Resolve(home.ServiceSocket()), false))
	return true
}

// checkPrivate checks that a file, if it exists, is the user's own and closed to others.
func checkPrivate(name string, mayBeMissing bool) error {
	info, err := os.Stat(name)
	if mayBeMissing && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return localFault("look at", name, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Forbidden, "%s belongs to user %d", name, st.Uid).WithHint("run capsem as that user, or choose another CAPSEM_HOME")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Forbidden, "%s is open to other users (mode %04o)", name, info.Mode().Perm()).WithHint("chmod go= %s", name)
	}
	return nil
}

// freeSpace is what the user may still store in a directory, or in the nearest one above it that exists.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if errors.Is(err, unix.ENOENT) && dir != "/" && dir != "." {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return 0, localFault("measure", dir, err)
		}
		return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec,unconvert // the types differ between systems
	}
}
