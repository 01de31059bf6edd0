package assets

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"capsem/core/fault"
)

func TestTheGuestAgentIsAProgramForItsArchitecture(t *testing.T) {
	t.Parallel()
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		agent, err := GuestAgent(arch)
		if err != nil {
			t.Fatal(fault.Line(err))
		}
		f, err := elf.NewFile(bytes.NewReader(agent))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine {
			t.Errorf("%s: it is for %v", arch, f.Machine)
		}
		if f.Section(".interp") != nil {
			t.Errorf("%s: it is not static", arch)
		}
	}
}

func TestAMissingAgentSaysHowToBuildIt(t *testing.T) {
	t.Parallel()
	for _, arch := range []string{"riscv64", "", "../locks/README"} {
		_, err := GuestAgent(arch)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Line(err), "go tool task build") {
			t.Errorf("%q: %v", arch, err)
		}
	}
}

func TestUnknownProfilesAreRefused(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"minimal", "dev"} {
		if text, err := Recipe(profile); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", profile, err)
		}
	}
	for _, profile := range []string{"", "huge", "../recipes/dev", "files/bashrc", "/dev", "dev\x00"} {
		if _, err := Recipe(profile); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", profile, err)
		}
	}
}

func TestAProfileNeedNotHaveALock(t *testing.T) {
	t.Parallel()
	if text, err := Lock("no-such-profile", "amd64"); text != nil || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
