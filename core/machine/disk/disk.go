// Package disk makes the system disk of a VM: the device under the guest's overlay.
package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/paths"
)

// Open opens a VM's system disk, making it first if there is none. qcow2 disks come from an empty formatted one of the
// same size, which is made once per size; raw ones are empty, and the guest formats them. The format is never guessed from
// what is on the disk: the guest writes that.
func Open(ctx context.Context, home paths.Home, vm paths.VM, sizeMB int, format hypervisor.DiskFormat) (*os.File, error) {
	path := vm.SystemDisk()
	if format == hypervisor.Raw {
		path = strings.TrimSuffix(path, filepath.Ext(path)) + ".raw"
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err == nil && format == hypervisor.QCOW2 && blank(f) {
		// The host lost power before anything of the disk was written, so before the guest could sync anything to it.
		err = errors.Join(fs.ErrNotExist, f.Close())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return f, explain(err)
	}
	if format == hypervisor.Raw {
		return sparse(path, sizeMB)
	}
	empty, err := template(ctx, home, sizeMB)
	if err != nil {
		return nil, err
	}
	defer empty.Close()
	return place(path, func(to *os.File) error {
		_, err := io.Copy(to, empty) // copy_file_range: shared blocks where the file system can
		return err
	})
}

// blank reports whether a disk image begins with nothing.
func blank(f *os.File) bool {
	head := make([]byte, 512)
	_, err := f.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && len(bytes.TrimLeft(head, "\x00")) == 0
}

// sparse makes a file of that size without content.
func sparse(path string, sizeMB int) (*os.File, error) {
	return place(path, func(f *os.File) error { return f.Truncate(int64(sizeMB) << 20) })
}

// place makes a file under a temporary name, fills it and renames it: a disk that is there is complete.
func place(path string, fill func(*os.File) error) (*os.File, error) {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, explain(err)
	}
	if err = fill(f); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(explain(err), f.Close(), os.Remove(temp))
	}
	return f, nil
}

func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(err, fault.NoSpace, "no space left for the VM's disk").WithHint("free some space on that disk")
	}
	return fmt.Errorf("make system disk: %w", err)
}

// template opens the empty qcow2 disk of that size, making it first if there is none.
func template(ctx context.Context, home paths.Home, sizeMB int) (*os.File, error) {
	dir := filepath.Join(home.Templates(), "disks")
	path := filepath.Join(dir, strconv.Itoa(sizeMB)+"M-ext4-v1.qcow2")
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, explain(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explain(err)
	}
	sweep(dir)
	// Two workers may both make one: each in a directory of its own, and the last rename stays.
	temp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return nil, explain(err)
	}
	made, err := format(ctx, temp, sizeMB)
	if err == nil {
		err = keep(made, path)
	}
	if err := errors.Join(err, os.RemoveAll(temp)); err != nil {
		return nil, err
	}
	f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	return f, explain(err)
}

// keep gives a finished template its name, durably: all later disks of that size are copies of it.
func keep(made, path string) error {
	f, err := os.OpenFile(made, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return explain(err)
	}
	return explain(errors.Join(f.Sync(), f.Close(), os.Rename(made, path)))
}

// sweep removes what workers left that were killed while they made a template.
func sweep(dir string) {
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil {
		return
	}
	for _, temp := range left {
		if info, err := os.Lstat(temp); err == nil && time.Since(info.ModTime()) > abandoned {
			_ = os.RemoveAll(temp) // the next one tries again
		}
	}
}

// abandoned is how long nobody takes to make a template.
const abandoned = time.Hour

// format makes an empty ext4 file system in a qcow2 file, or an unformatted one, which the guest formats, where there is no
// mke2fs. It returns the file's path in dir.
func format(ctx context.Context, dir string, sizeMB int) (string, error) {
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	img, err := tool("qemu-img")
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "qemu-img is not installed").WithHint("install it, for example: apt install qemu-utils")
	}
	mke2fs, err := tool("mke2fs")
	if err != nil {
		return image, run(ctx, img, "create", "-q", "-f", "qcow2", image, strconv.Itoa(sizeMB)+"M")
	}
	f, err := sparse(raw, sizeMB)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", explain(err)
	}
	// No blocks are kept for root, who is the user here; tables are left to be written when they are used.
	err = run(ctx, mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-L", "capsem-system", "-E", "lazy_itable_init=1,lazy_journal_init=1", raw)
	if err != nil {
		return "", err
	}
	return image, run(ctx, img, "convert", "-q", "-f", "raw", "-O", "qcow2", raw, image)
}

// tool finds a program also without a PATH: workers have none.
func tool(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/", "/usr/local/bin/", "/opt/homebrew/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = []string{}, "/"
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("make system disk: %w", context.Cause(ctx))
	}
	text := strings.TrimSpace(string(out[:min(len(out), 500)]))
	if strings.Contains(text, "No space left") {
		return fault.Wrap(err, fault.NoSpace, "no space left for the VM's disk").WithHint("free some space on that disk")
	}
	return fmt.Errorf("make system disk: %s: %w: %s", filepath.Base(name), err, text)
}
