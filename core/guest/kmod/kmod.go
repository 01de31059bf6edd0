//go:build linux

// Package kmod loads the kernel modules of the initrd and then locks module loading.
package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// LoadAll loads the modules listed in dir/order, one file name (relative to dir) a line, dependencies first. A module that
// is loaded already or has no device is no error; one that is unwanted is left out. It goes on after an error and returns
// all of them.
func LoadAll(dir string, unwanted func(name string) bool) error {
	text, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel that needs none
	}
	if err != nil {
		return fmt.Errorf("read module order: %w", err)
	}
	return loadEach(dir, string(text), func(path, params string) error {
		if unwanted(filepath.Base(path)) {
			return nil
		}
		return load(path, params)
	})
}

func loadEach(dir, order string, load func(path, params string) error) error {
	var errs error
	for line := range strings.Lines(order) {
		name, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name[0] == '#' {
			continue
		}
		err := load(filepath.Join(dir, filepath.Join("/", name)), strings.TrimSpace(params))
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			errs = errors.Join(errs, fmt.Errorf("load module %s: %w", filepath.Base(name), err))
		}
	}
	return errs
}

func load(path, params string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(fd, params, flags); err != nil {
		return fmt.Errorf("finit_module: %w", err)
	}
	return nil
}

// Lock forbids loading modules until the next boot. A kernel without modules needs no lock.
func Lock() error {
	err := os.WriteFile("/proc/sys/kernel/modules_disabled", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("lock modules: %w", err)
	}
	return nil
}
