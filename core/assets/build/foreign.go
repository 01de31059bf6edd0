package build

import (
	"os"
	"path/filepath"
	"runtime"

	"capsem/core/fault"
)

// emulated are the names of QEMU's user emulators, by architecture.
var emulated = map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}

// canRun refuses an architecture whose programs this machine cannot run: those of the image's packages run in a build. binfmt is
// where the kernel lists which programs it hands to an emulator.
func canRun(arch, binfmt string) error {
	if arch == runtime.GOARCH {
		return nil
	}
	if err := needTools("arch-test"); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(binfmt, emulated[arch])); err == nil {
		return nil
	}
	return fault.New(fault.Unavailable, "this machine cannot run programs for %s", arch).
		WithHint("install an emulator: apt install qemu-user-static binfmt-support arch-test; in a container, mount binfmt_misc on its host")
}
