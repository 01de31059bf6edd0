// Package build makes guest images from recipes: mmdebstrap of Debian 13, Debian's cloud kernel, our files, the guest agent. A
// lock pins every package; the same lock gives the same bytes.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	embedded "capsem/assets"
	"capsem/core/assets"
	"capsem/core/assets/initrd"
	"capsem/core/fault"
	"capsem/core/paths"
)

// suite is Debian 13.
const suite = "trixie"

// Options say what to build.
type Options struct {
	Home paths.Home
	// Arch is amd64 or arm64, Profile the name of a recipe.
	Arch, Profile string
	// RootFS is squashfs or erofs; empty is squashfs.
	RootFS string
	// Locked refuses to build anything but what the lock says. UpdateLock moves the lock to what is current.
	Locked, UpdateLock bool
	// Mirror is the address of a Debian mirror; empty takes the one of this machine's apt.
	Mirror string
	// Progress is told what is being done; nil tells nobody.
	Progress func(Step)
}

// Step is what is being done.
type Step struct {
	// Name is the step, Detail where it is.
	Name, Detail string
	// Warning marks something the user should know, rather than a step.
	Warning bool
}

// Result is what was built.
type Result struct {
	Set *assets.Set
	// Lock is where the lock was written; empty if it was not. Moved lists what differs from the lock before.
	Lock  string
	Moved []string
	Took  time.Duration
}

// job is one build.
type job struct {
	Options
	recipe  *Recipe
	lock    *Lock // nil without one to keep to
	mirrors mirrors
	// dir takes the set; scratch everything else.
	dir, scratch string
}

// Run builds an image and makes it the current one of its architecture. Only one build runs at a time in an installation.
// Cut short at any point, it leaves what was there before; the next one removes the rest.
func Run(ctx context.Context, opts Options) (_ *Result, err error) {
	start := time.Now()
	j := &job{Options: opts}
	if err := j.prepare(); err != nil {
		return nil, err
	}
	lock, err := assets.Lock(ctx, j.Home, func(pid int) {
		j.say("waiting", fmt.Sprintf("for another build, process %d", pid))
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if j.dir, err = assets.Staging(j.Home); err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	defer os.RemoveAll(j.dir)
	if j.scratch, err = newScratch(j.Home); err != nil {
		return nil, err
	}
	defer os.RemoveAll(j.scratch)
	res, err := j.build(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("build image: %w", context.Cause(ctx))
		}
		return nil, assets.Explain(j.Home, err) //nolint:wrapcheck // says what it did
	}
	res.Took = time.Since(start)
	return res, nil
}

// prepare checks everything that can be checked before the work begins.
func (j *job) prepare() (err error) {
	if j.Arch != "amd64" && j.Arch != "arm64" {
		return fault.New(fault.Invalid, "there are no images for architecture %.20q", j.Arch).WithHint("use amd64 or arm64")
	}
	if j.RootFS == "" {
		j.RootFS = "squashfs"
	}
	if _, ok := packers[j.RootFS]; !ok {
		return fault.New(fault.Invalid, "%.20q is no kind of root file system", j.RootFS).WithHint("use squashfs or erofs")
	}
	if j.Progress == nil {
		j.Progress = func(Step) {}
	}
	if j.recipe, err = LoadRecipe(j.Profile); err != nil {
		return err
	}
	if j.lock, err = loadLock(j.Home, j.Profile, j.Arch); err != nil && !j.UpdateLock {
		return err
	}
	if j.Locked && j.lock == nil {
		return fault.New(fault.NotFound, "there is no lock for %s on %s", j.Profile, j.Arch).WithHint("make one with: capsem assets build --update-lock")
	}
	if j.UpdateLock {
		j.lock = nil
	}
	if err := needTools("mmdebstrap", "dpkg-deb", packers[j.RootFS].tool); err != nil {
		return err
	}
	if err := canRun(j.Arch, "/proc/sys/fs/binfmt_misc"); err != nil {
		return err
	}
	if j.Mirror == "" {
		j.Mirror = os.Getenv("CAPSEM_DEBIAN_MIRROR")
	}
	j.mirrors, err = findMirrors(j.Mirror, "/etc/apt")
	return err
}

func (j *job) say(name, detail string) { j.Progress(Step{Name: name, Detail: detail}) }

func (j *job) warn(format string, args ...any) {
	j.Progress(Step{Name: fmt.Sprintf(format, args...), Warning: true})
}

func (j *job) build(ctx context.Context) (*Result, error) {
	agent, err := embedded.GuestAgent(j.Arch)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	now, err := j.rootfs(ctx)
	if err != nil {
		return nil, err
	}
	kernel, modules, err := j.kernel(ctx, now)
	if err != nil {
		return nil, err
	}
	res := &Result{}
	if res.Moved, err = j.compare(now); err != nil {
		return nil, err
	}
	j.say("initrd", fmt.Sprintf("%d modules", len(modules)))
	if err := writeInitrd(filepath.Join(j.dir, assets.Initrd), initrd.Input{Agent: agent, Modules: modules}); err != nil {
		return nil, err
	}
	text, err := now.encode()
	if err != nil {
		return nil, err
	}
	recipe, err := j.recipe.hash()
	if err != nil {
		return nil, err
	}
	j.say("checking", "hashing the files")
	res.Set, err = assets.Publish(j.Home, j.dir, assets.Entry{
		Arch: j.Arch, Profile: j.Profile, RootFS: j.RootFS, Kernel: kernel, Agent: assets.Hash(agent), Recipe: recipe, Lock: assets.Hash(text),
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	if j.UpdateLock {
		res.Lock, err = now.save(j.Home, j.Profile, j.Arch)
	}
	return res, err
}

// compare holds what was installed to the lock. Debian's mirrors drop old versions, so a lock that cannot be met is only said,
// unless it was insisted on.
func (j *job) compare(now *Lock) ([]string, error) {
	moved := j.lock.differences(now)
	if len(moved) == 0 {
		return nil, nil
	}
	if j.Locked {
		return nil, fault.New(fault.Conflict, "the lock can no longer be met: %s", summary(moved)).
			WithHint("build without --locked, or move the lock with --update-lock")
	}
	j.warn("the lock can no longer be met, current versions are used: %s", summary(moved))
	return moved, nil
}

func summary(list []string) string {
	const shown = 3
	if len(list) <= shown {
		return strings.Join(list, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(list[:shown], "; "), len(list)-shown)
}

func writeInitrd(path string, in initrd.Input) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write initrd: %w", err)
	}
	return errors.Join(initrd.Build(f, in), f.Close())
}

// Identity is what an image of a profile would be made of, without its packages' versions when there is no lock: equal
// identities make equal images, up to what the mirror offers.
func Identity(home paths.Home, profile, arch string) (string, error) {
	r, err := LoadRecipe(profile)
	if err != nil {
		return "", err
	}
	recipe, err := r.hash()
	if err != nil {
		return "", err
	}
	lock, err := loadLock(home, profile, arch)
	if err != nil {
		return "", err
	}
	text := []byte{}
	if lock != nil {
		if text, err = lock.encode(); err != nil {
			return "", err
		}
	}
	return assets.Hash([]byte(strings.Join([]string{builderVersion, arch, recipe, assets.Hash(text)}, "\n")))[:16], nil
}

// builderVersion changes when this package makes other images of the same recipe.
const builderVersion = "2"
