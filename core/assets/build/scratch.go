package build

import (
	"fmt"
	"os"
	"path/filepath"

	"capsem/core/assets"
	"capsem/core/paths"
)

// newScratch makes a directory for what a build needs on the way, after it has removed those that dead builds of this
// installation left. The caller holds the lock of the installation's images. It is not inside the installation, where the
// user that apt downloads as cannot go.
func newScratch(home paths.Home) (string, error) {
	where, err := filepath.Abs(string(home))
	if err != nil {
		return "", fmt.Errorf("make scratch directory: %w", err)
	}
	prefix := "capsem-build-" + assets.Hash([]byte(where))[:12] + "-"
	old, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", fmt.Errorf("find scratch directories: %w", err)
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return "", fmt.Errorf("remove what a dead build left: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", fmt.Errorf("make scratch directory: %w", err)
	}
	return dir, nil
}
