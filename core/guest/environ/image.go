//go:build linux

package environ

import (
	"io"
	"os"
	"strings"

	"capsem/core/proto"
)

// maxImage bounds the file that Image reads, in bytes.
const maxImage = 64 << 10

// Image is the environment that the image's recipe gives: the KEY=VALUE lines of a file such as /etc/environment. Whatever is
// not well formed is left out, and an absent file is empty: commands can do without.
func Image(path string) map[string]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxImage))
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") && proto.ValidateEnv(map[string]string{key: value}) == nil {
			out[key] = value
		}
	}
	return out
}
