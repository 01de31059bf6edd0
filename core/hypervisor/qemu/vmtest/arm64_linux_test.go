//go:build vm

package vmtest

import (
	"os"
	"strings"
	"testing"

	"capsem/core/assets"
	"capsem/core/paths"
)

// An arm64 image takes minutes to build under emulation, so this boots one only where CAPSEM_TEST_ARM64_HOME names an
// installation that has one: `capsem assets build --arch arm64 --profile minimal`.
func TestAnArm64GuestBootsUnderEmulation(t *testing.T) {
	home := paths.Home(os.Getenv("CAPSEM_TEST_ARM64_HOME"))
	if home == "" {
		t.Skip("CAPSEM_TEST_ARM64_HOME names no installation with an arm64 image")
	}
	set, err := assets.Current(home, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	s := specOf(t, set)
	s.Arch = "arm64"
	_, g := boot(t, s)
	out, err := g.run(t.Context(), "uname -m; cat /proc/net/dev | grep -c :; python3 -c 'print(6*7)'")
	if err != nil || strings.Fields(out)[0] != "aarch64" || !strings.HasSuffix(out, "\n2\n42\n") {
		t.Errorf("it says %q, %v", out, err)
	}
}
