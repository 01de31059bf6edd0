package build

import (
	"slices"
	"strings"
	"testing"

	"capsem/core/fault"
)

func TestARecipeThatIsWrongIsRefusedWithItsLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":        {"packages = []\n\npackagse = []\n", `line 3: unknown key "packagse"`},
		"unknown nested key": {"[kernel]\nname = \"x\"\n", `line 2: unknown key "kernel.name"`},
		"wrong type":         {"packages = 3\n", "line 1"},
		"not TOML":           {"packages = [\n", "recipe x, line"},
		"option as package":  {"packages = [\"--force\"]\n", "malformed"},
		"two in one package": {"packages = [\"a,b\"]\n", "malformed"},
		"relative path":      {"[[file]]\npath = \"etc/x\"\nsource = \"motd\"\nmode = \"0644\"\n", "malformed"},
		"path with dots":     {"[[file]]\npath = \"/etc/../x\"\nsource = \"motd\"\nmode = \"0644\"\n", "malformed"},
		"source elsewhere":   {"[[file]]\npath = \"/x\"\nsource = \"../motd\"\nmode = \"0644\"\n", "malformed"},
		"set-id mode":        {"[[file]]\npath = \"/x\"\nsource = \"motd\"\nmode = \"4755\"\n", "mode"},
		"shell in user":      {"[[user]]\nname = \"a;reboot\"\nuid = 1000\nshell = \"/bin/sh\"\n", "malformed"},
		"user is root":       {"[[user]]\nname = \"a\"\nuid = 0\nshell = \"/bin/sh\"\n", "malformed"},
		"shell in npm":       {"[npm]\nprefix = \"/opt/x\"\nprograms = [\"a b\"]\n", "malformed"},
		"line in variable":   {"[environment]\nA = \"x\\ny\"\n", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseRecipe("x", []byte(c.text))
			if err == nil || !strings.Contains(fault.Line(err), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestDevHasEverythingOfMinimalAndItsOwn(t *testing.T) {
	minimal, err := LoadRecipe("minimal")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := LoadRecipe("dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range slices.Concat(minimal.Packages, []string{"nodejs", "npm", "ripgrep", "tmux", "build-essential", "jq"}) {
		if !slices.Contains(dev.Packages, p) {
			t.Errorf("dev has no %s", p)
		}
	}
	if len(dev.Kernel.Modules) == 0 || dev.Environment["LANG"] == "" || dev.NPM.Prefix != "/opt/ai-clis" {
		t.Errorf("dev is %+v", dev)
	}
	if len(dev.Files) != len(minimal.Files)+5 {
		t.Errorf("dev has %d files, minimal %d", len(dev.Files), len(minimal.Files))
	}
}

func TestARecipesHashMovesWithWhatItSays(t *testing.T) {
	a := Recipe{Packages: []string{"bash"}}
	b := Recipe{Packages: []string{"bash", "git"}}
	ha, errA := a.hash()
	hb, errB := b.hash()
	if errA != nil || errB != nil || ha == hb {
		t.Errorf("%s (%v) and %s (%v)", ha, errA, hb, errB)
	}
}

func FuzzRecipe(f *testing.F) {
	f.Add([]byte("packages = [\"bash\"]\n[[file]]\npath = \"/x\"\nsource = \"motd\"\nmode = \"0644\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecipe("fuzz", text)
		if err != nil {
			return
		}
		for _, p := range r.Packages {
			if strings.ContainsAny(p, " ,;'\"$`\n/") || strings.HasPrefix(p, "-") {
				t.Errorf("package %q was let through", p)
			}
		}
	})
}
