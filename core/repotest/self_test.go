package repotest

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source parses a Go file that is made up by the test.
func source(t *testing.T, name, text string) *File {
	t.Helper()
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, name, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return &File{Path: name, Lines: strings.Count(text, "\n"), Test: strings.HasSuffix(name, "_test.go"), fset: fset, ast: tree}
}

func fixture(t *testing.T, dir string) []*File {
	t.Helper()
	files, err := ReadGo(filepath.Join("testdata", "fixture", dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no file in fixture %s", dir)
	}
	return files
}

// expect compares findings with the substrings wanted of them, one each, in any order.
func expect(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	for _, w := range want {
		i := slices.IndexFunc(got, func(f Finding) bool { return strings.Contains(f.String(), w) })
		if i < 0 {
			t.Errorf("no finding contains %q; got %v", w, got)
			continue
		}
		got = slices.Delete(slices.Clone(got), i, i+1)
	}
	for _, f := range got {
		t.Errorf("not expected: %v", f)
	}
}

func TestGoodSourceHasNoFindings(t *testing.T) {
	files := fixture(t, "plain")
	expect(t, slices.Concat(Sizes(files), Interfaces(files), Documented(files), PackageComments(files)))
}

func TestUndocumentedNamesAreFound(t *testing.T) {
	expect(t, Documented(fixture(t, "silent")), "type Loud", "const Count", "func Shout", "func Method")
}

func TestPackageCommentIsExactlyOne(t *testing.T) {
	expect(t, PackageComments(fixture(t, "silent")), "no package comment")
	expect(t, PackageComments(fixture(t, "twice")), "2 package comments")
	expect(t, PackageComments([]*File{source(t, "x/x.go", "// Something else.\npackage x\n")}), `does not begin with "Package x "`)
	expect(t, PackageComments([]*File{
		source(t, "x/x_linux.go", "// Package x is for linux.\npackage x\n"),
		source(t, "x/x_darwin.go", "// Package x is for darwin.\npackage x\n"),
	}))
}

func TestLargeInterfaceIsFound(t *testing.T) {
	expect(t, Interfaces(fixture(t, "silent")), "interface Loud has 6 methods")
}

func TestLongFunctionIsFoundButATableIsNot(t *testing.T) {
	lines := strings.Repeat("\t_ = 0\n", MaxFuncLines)
	data := strings.Repeat("\t\t0,\n", MaxFuncLines)
	calls := strings.Repeat("\t\tfunc() {},\n", MaxFuncLines)
	expect(t, Sizes([]*File{source(t, "a.go", "package a\nfunc long() {\n"+lines+"}\n")}), "func long has 62 lines")
	expect(t, Sizes([]*File{source(t, "a.go", "package a\nfunc short() {\n"+lines[:len(lines)-2*len("\t_ = 0\n")]+"}\n")}))
	expect(t, Sizes([]*File{source(t, "a.go", "package a\nfunc table() {\n\t_ = []int{\n"+data+"\t}\n}\n")}))
	expect(t, Sizes([]*File{source(t, "a.go", "package a\nfunc code() {\n\t_ = []func(){\n"+calls+"\t}\n}\n")}), "func code has")
}

func TestLongFileIsFound(t *testing.T) {
	text := "package a\n" + strings.Repeat("\n", MaxFileLines)
	expect(t, Sizes([]*File{source(t, "a.go", text)}), "501 lines")
	expect(t, Sizes([]*File{source(t, "a.go", text[:len(text)-1])}))
}

func TestInitFunctionIsFound(t *testing.T) {
	expect(t, NoInit([]*File{source(t, "a.go", "package a\nfunc init() {}\ntype t int\nfunc (t) init() {}\n")}), "a.go:2: func init")
}

func TestForbiddenWordsAreFound(t *testing.T) {
	dir := t.TempDir()
	lines := []string{
		"fetch from ftp.xy.debian" + ".org",
		"GOPROXY=proxy.golang" + ".org",
		"// TO" + "DO later",
		"cd /work/" + "main",
		"a plain line about Debian, mktemp capsem.XXXXXX and golang.org",
	}
	if err := os.WriteFile(filepath.Join(dir, "a.md"), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Words(dir)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, got, "a.md:1", "a.md:2", "a.md:3", "a.md:4")
}

func TestLayerRule(t *testing.T) {
	cases := []struct {
		from, to string
		want     bool
	}{
		{"core/proto", "core/lifecycle", true},
		{"core/proto", "core/link", false},
		{"core/guestlink", "core/link", true},
		{"core/machine", "core/hypervisor/qemu", true},
		{"core/hypervisor/qemu", "core/machine", false},
		{"core/machine", "core/service", false},
		{"core/service/registry", "core/service", true},
		{"core/localapi", "core/service", true},
		{"core/client", "core/localapi", false},
		{"core/config", "personalities/cli", false},
		{"core/config", "personalities", false},
		{"personalities/cli", "core/client", true},
		{"personalities/cli", "personalities/service", false},
		{"personalities", "personalities/service", true},
		{"", "personalities", true},
		{"core/api", "core/repotest", false},
		{".ci/bench", "core/client", true},
		{"core/nowhere", "core/api", false},
	}
	for _, c := range cases {
		from, to := strings.TrimSuffix(module+"/"+c.from, "/"), module+"/"+c.to
		got := Layers([]Package{{ImportPath: from, Imports: []string{"fmt", to}}})
		if (len(got) == 0) != c.want {
			t.Errorf("%s imports %s: allowed %v, want %v", from, to, len(got) == 0, c.want)
		}
	}
}

func TestWhatMayNeverBeLinked(t *testing.T) {
	list := func(path string, deps ...string) []Package {
		return []Package{
			{ImportPath: module + "/" + path, Deps: deps},
			{ImportPath: "example.com/c", CgoFiles: []string{"c.go"}},
			{ImportPath: "net", Standard: true, CgoFiles: []string{"cgo.go"}},
		}
	}
	cases := []struct {
		pkgs []Package
		want bool
	}{
		{list("core/service", module+"/core/workerclient"), true},
		{list("core/service", module+"/core/hypervisor"), false},
		{list("core/service/registry", module+"/core/machine"), false},
		{list("core/guest/boot", module+"/core/proto", module+"/core/link/vsock", "net"), true},
		{list("core/guest/boot", module+"/core/config"), false},
		{list("core/guest/boot", "example.com/c"), false},
		{list("guestagent", module+"/core/machine"), false},
		{list("guestagent", "testing"), false},
		{list("core/machine", "example.com/c", module+"/core/hypervisor"), true},
	}
	for i, c := range cases {
		if got := Never(c.pkgs); (len(got) == 0) != c.want {
			t.Error(fmt.Sprintf("case %d (%s depends on %v):", i, c.pkgs[0].ImportPath, c.pkgs[0].Deps), got)
		}
	}
}
