//go:build linux

package environ

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestImageTakesOnlyWhatIsWellFormed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "environment")
	text := "EDITOR=vim\n# A=comment\n\nLD_PRELOAD=/evil.so\nno sense\n=x\n  LANG=C.UTF-8  \nURL=a=b\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"EDITOR": "vim", "LANG": "C.UTF-8", "URL": "a=b"}
	if got := Image(path); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Image(path + "-absent"); len(got) != 0 {
		t.Errorf("an absent file gives %v", got)
	}
}
