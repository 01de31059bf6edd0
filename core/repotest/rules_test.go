package repotest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		"files and functions are short":  Sizes,
		"interfaces are small":           Interfaces,
		"exported names are documented":  Documented,
		"packages have one comment":      PackageComments,
		"linking a package does nothing": NoInit,
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

func TestTheTwoCommandsAreWhatTheReadmeAndCISay(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := read(".ci/run"); got != "#!/bin/sh\nexec go tool task test\n" {
		t.Errorf(".ci/run does more or less than call the test task: %q", got)
	}
	info, err := os.Stat(filepath.Join(root, ".ci/run"))
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf(".ci/run is not executable: %v", err)
	}
	readme := read("README.md")
	for _, command := range []string{"go tool task try", "go tool task test"} {
		if !strings.Contains(readme, "    "+command+"\n") {
			t.Errorf("README.md does not show %q", command)
		}
	}
	tasks := read("Taskfile.yml")
	for _, task := range []string{"try", "test", "build", "assets", "lint", "bench", "fuzz"} {
		if !strings.Contains(tasks, "\n  "+task+":\n") {
			t.Errorf("Taskfile.yml has no task %q", task)
		}
	}
}
