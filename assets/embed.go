// Package assets is what the binary brings to make guest images: the recipes, the locks that pin what they install, and the
// guest agent for each architecture.
package assets

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/klauspost/compress/zstd"

	"capsem/core/fault"
)

//go:embed recipes locks guestbin
var files embed.FS

// maxAgent bounds a decompressed agent, in bytes.
const maxAgent = 64 << 20

// Recipe returns recipes/<profile>.toml; fault.NotFound when there is no such profile.
func Recipe(profile string) ([]byte, error) {
	text, err := files.ReadFile("recipes/" + profile + ".toml")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return nil, fault.New(fault.NotFound, "there is no image profile %.40q", profile).WithHint("use minimal or dev")
	}
	if err != nil {
		return nil, fmt.Errorf("read recipe: %w", err)
	}
	return text, nil
}

// RecipeFile returns a file that recipes refer to, recipes/files/<name>.
func RecipeFile(name string) ([]byte, error) {
	text, err := files.ReadFile("recipes/files/" + name)
	if err != nil {
		return nil, fmt.Errorf("read file of recipe: %w", err)
	}
	return text, nil
}

// Lock returns the lock of a profile and architecture; nil when there is none.
func Lock(profile, arch string) ([]byte, error) {
	text, err := files.ReadFile("locks/" + profile + "-" + arch + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	return text, nil
}

// GuestAgent returns the guest agent for an architecture (a GOARCH word): some MB, unpacked by each call.
func GuestAgent(arch string) ([]byte, error) {
	packed, err := files.ReadFile("guestbin/agent-" + arch + ".zst")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "this capsem was built without its guest agent for %s", arch).
			WithHint("build it with: go tool task build")
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxAgent))
	if err != nil {
		return nil, fmt.Errorf("unpack guest agent: %w", err)
	}
	defer d.Close()
	agent, err := d.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack guest agent: %w", err)
	}
	return agent, nil
}
