//go:build linux

package environ

import (
	"slices"
	"testing"
)

func TestLaterLayersWin(t *testing.T) {
	t.Parallel()
	got := Merge(map[string]string{"B": "1", "A": "1"}, nil, map[string]string{"B": "2=3", "C": ""})
	if want := []string{"A=1", "B=2=3", "C="}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	lines := []string{"PATH=/a", "PATHS=/b", "X=", "PATH=/c=d"}
	for key, want := range map[string]string{"PATH": "/c=d", "PATHS": "/b", "X": "", "PAT": "", "NONE": "", "": ""} {
		if got := Lookup(lines, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestTheBaseIsEnoughForAShell(t *testing.T) {
	t.Parallel()
	base := Merge(Base())
	for _, key := range []string{"HOME", "USER", "SHELL", "PATH", "LANG", "TERM"} {
		if Lookup(base, key) == "" {
			t.Errorf("%s is not set", key)
		}
	}
}
