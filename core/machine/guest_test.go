package machine

import (
	"io"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/proto"
)

func TestEveryNameGivesAHostName(t *testing.T) {
	for name, want := range map[string]string{
		"dev": "dev", "UPPER": "upper", "My-Box": "my-box", "a_b": "a-b", "a_": "a", "Z": "z", "9--": "9",
		strings.Repeat("A", 64): strings.Repeat("a", 63), strings.Repeat("a", 62) + "_b": strings.Repeat("a", 62),
	} {
		if err := api.CheckName(name); err != nil {
			t.Fatal(err)
		}
		got := hostname(name)
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		cfg := proto.BootConfig{ID: name, Hostname: got, EpochNS: 1, MachineID: strings.Repeat("0a", 16), Entropy: make([]byte, 32)}
		if err := proto.WriteHost(io.Discard, cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
