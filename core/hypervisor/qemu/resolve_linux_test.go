package qemu

import (
	"os"
	"runtime"
	"testing"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/paths"
)

// The probe's few instructions are right if QEMU's own emulation runs them to the same end.
func TestTheProbeEndsAsItShouldWhereTheAcceleratorWorks(t *testing.T) {
	program, err := Program(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if err := runProbe(t.Context(), program, "tcg", "max"); err != nil {
		t.Error(err)
	}
}

func TestResolveRemembersItsVerdictAndForgetsADamagedOne(t *testing.T) {
	home := paths.Home(t.TempDir())
	first, why, err := Resolve(t.Context(), home, hypervisor.Auto)
	if err != nil {
		t.Fatal(err)
	}
	if (first != hypervisor.KVM && first != hypervisor.TCG) || why == "" {
		t.Fatalf("resolved %q because %q", first, why)
	}
	before, err := os.Stat(home.AcceleratorVerdict())
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := Resolve(t.Context(), home, hypervisor.Auto); err != nil || again != first {
		t.Errorf("the second time %q, %v", again, err)
	}
	if after, err := os.Stat(home.AcceleratorVerdict()); err != nil || !os.SameFile(before, after) {
		t.Errorf("the verdict was made again (%v)", err)
	}
	if err := os.WriteFile(home.AcceleratorVerdict(), []byte("{\"host\": 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _, err := Resolve(t.Context(), home, hypervisor.Auto); err != nil || again != first {
		t.Errorf("with a damaged file %q, %v", again, err)
	}
	if _, _, err := Resolve(t.Context(), home, hypervisor.KVM); (first == hypervisor.KVM) != (err == nil) || (err != nil && !fault.Is(err, fault.Unavailable)) {
		t.Errorf("insisting on KVM: %v", err)
	}
	if a, _, err := Resolve(t.Context(), home, hypervisor.TCG); err != nil || a != hypervisor.TCG {
		t.Errorf("insisting on TCG: %q, %v", a, err)
	}
}
