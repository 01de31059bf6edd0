package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"

	"capsem/core/assets"
	"capsem/core/assets/initrd"
)

// maxKernel bounds an unpacked kernel, in bytes.
const maxKernel = 256 << 20

// kernelHook downloads the package that the kernel's meta package stands for, with the sources and pins of the image.
func (j *job) kernelHook() string {
	dir := filepath.Join(j.scratch, "kernel")
	meta := j.recipe.Kernel.Package + "-" + j.Arch
	return "set -e; export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\"; echo 'capsem: downloading the kernel' >&2; mkdir -p " + dir + "; cd " + dir + "; " +
		"p=$(apt-cache depends " + meta + " | sed -n 's/.*Depends: \\(linux-image-[0-9][^ :]*\\).*/\\1/p' | head -n 1); " +
		"test -n \"$p\"; apt-get -q -o APT::Sandbox::User=root download \"$p\" >&2"
}

// kernel unpacks the downloaded package: the kernel goes into the set, the modules are returned. It completes the lock.
func (j *job) kernel(ctx context.Context, now *Lock) (release string, modules []initrd.Module, err error) {
	j.say("kernel", "unpacking")
	debs, err := filepath.Glob(filepath.Join(j.scratch, "kernel", "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", nil, fmt.Errorf("find the kernel's package: %d files are there (%w)", len(debs), err)
	}
	if now.Kernel, err = pinnedFile(debs[0]); err != nil {
		return "", nil, err
	}
	tree := filepath.Join(j.scratch, "kernel", "tree")
	if err := runTool(ctx, nil, "dpkg-deb", "--extract", debs[0], tree); err != nil {
		return "", nil, err
	}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return "", nil, fmt.Errorf("find the kernel: %d files are there (%w)", len(images), err)
	}
	release = strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if err := copyKernel(images[0], filepath.Join(j.dir, assets.Kernel), j.Arch); err != nil {
		return "", nil, err
	}
	for _, lib := range []string{"usr/lib/modules", "lib/modules"} {
		dir := filepath.Join(tree, lib, release)
		if _, err := os.Stat(dir); err == nil {
			modules, err = initrd.Modules(os.DirFS(dir), j.recipe.Kernel.Modules)
			return release, modules, err //nolint:wrapcheck // says what it did
		}
	}
	return "", nil, errors.New("find kernel modules: the package has none")
}

// pinnedFile describes a downloaded package: apt names it name_version_arch.deb, with % codes in the version.
func pinnedFile(path string) (Pinned, error) {
	f, err := os.Open(path)
	if err != nil {
		return Pinned{}, fmt.Errorf("read kernel package: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Pinned{}, fmt.Errorf("read kernel package: %w", err)
	}
	parts := strings.Split(strings.TrimSuffix(filepath.Base(path), ".deb"), "_")
	if len(parts) != 3 {
		return Pinned{}, fmt.Errorf("read kernel package: its name is %q", filepath.Base(path))
	}
	version, err := url.PathUnescape(parts[1])
	if err != nil {
		return Pinned{}, fmt.Errorf("read kernel package: %w", err)
	}
	return Pinned{Name: parts[0], Version: version, Arch: parts[2], SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// copyKernel copies the kernel; for arm64 as a bare Image, since neither vz nor QEMU's loader takes every packing of it.
func copyKernel(from, to, arch string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read kernel: %w", err)
	}
	if arch == "arm64" && bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("unpack kernel: %w", err)
		}
		if text, err = io.ReadAll(io.LimitReader(z, maxKernel)); err != nil {
			return fmt.Errorf("unpack kernel: %w", err)
		}
	}
	if err := os.WriteFile(to, text, 0o644); err != nil {
		return fmt.Errorf("write kernel: %w", err)
	}
	return nil
}
