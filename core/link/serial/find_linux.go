package serial

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lookEvery is how often Open looks for a port that has not been announced yet; it comes within milliseconds of the driver.
const lookEvery = 5 * time.Millisecond

// find returns the device node of the virtio-serial port of that name: the directory below sys/class/virtio-ports whose
// file "name" holds it is called like the node in dev.
func find(root, name string) (string, error) {
	files, err := filepath.Glob(filepath.Join(root, "sys/class/virtio-ports/*/name"))
	if err != nil {
		return "", fmt.Errorf("find serial port %s: %w", name, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(b)) == name {
			return filepath.Join(root, "dev", filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", fmt.Errorf("find serial port %s: %w", name, fs.ErrNotExist)
}

// wait looks for the port until it is there with its node, or ctx ends.
func wait(ctx context.Context, root, name string) (string, error) {
	for {
		node, err := find(root, name)
		if err == nil {
			if _, err = os.Lstat(node); err == nil {
				return node, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-time.After(lookEvery):
		}
	}
}
