package build

import (
	"runtime"
	"strings"
	"testing"

	"capsem/core/fault"
)

func TestAForeignArchitectureWithoutAnEmulatorSaysWhatToInstall(t *testing.T) {
	foreign := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	err := canRun(foreign, t.TempDir())
	if err == nil || !strings.Contains(fault.Line(err), "apt install") {
		t.Errorf("got %v", err)
	}
	if err := canRun(runtime.GOARCH, t.TempDir()); err != nil {
		t.Errorf("this machine's own architecture was refused: %v", err)
	}
}

func TestMissingToolsAreNamedWithTheirPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := needTools("mmdebstrap")
	if err == nil || !strings.Contains(fault.Line(err), "not installed: mmdebstrap") || !strings.Contains(fault.Line(err), "apt install mmdebstrap") {
		t.Errorf("got %v", err)
	}
}
