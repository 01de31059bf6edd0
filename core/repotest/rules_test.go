package repotest

import (
	"slices"
	"testing"
)

// root is the top of the repository, seen from this package.
const root = "../.."

func report(t *testing.T, findings []Finding) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

func TestRepositoryObeysTheSourceRules(t *testing.T) {
	t.Parallel()
	files, err := ReadGo(root)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f *File) bool { return f.Path == "core/repotest/rules_test.go" }) {
		t.Fatal("this file was not read: the rules would pass on nothing")
	}
	rules := map[string]func([]*File) []Finding{
		"files and functions are short": Sizes,
		"interfaces are small":          Interfaces,
		"exported names are documented": Documented,
		"packages have one comment":     PackageComments,
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) { report(t, rule(files)) })
	}
}

func TestRepositoryHasNoForbiddenWords(t *testing.T) {
	t.Parallel()
	findings, err := Words(root)
	if err != nil {
		t.Fatal(err)
	}
	report(t, findings)
}

func TestRepositoryObeysTheLayers(t *testing.T) {
	t.Parallel()
	for _, goos := range []string{"linux", "darwin"} {
		t.Run(goos, func(t *testing.T) {
			t.Parallel()
			pkgs, err := List(t.Context(), root, goos)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(pkgs, func(p Package) bool { return p.ImportPath == module+"/core/proto" && len(p.Imports) > 0 }) {
				t.Fatal("core/proto is not in the list: the rules would pass on nothing")
			}
			report(t, Layers(pkgs))
			report(t, Never(pkgs))
		})
	}
}
