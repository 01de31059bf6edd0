package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnErrorInAFileForMacOSIsFound(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"good":             {"package m\n\nimport \"golang.org/x/sys/unix\"\n\nvar X = 1\n", "unix"},
		"fine":             {"package m\n\nimport \"syscall\"\n\nvar X = syscall.NOTE_EXIT\n", ""},
		"with cgo":         {"package m\n\n// #include <stdio.h>\nimport \"C\"\n\nfunc f() { C.puts(nil) }\n", ""},
		"wrong type":       {"package m\n\nvar x int = \"text\"\n", "m_darwin.go:3"},
		"unknown name":     {"package m\n\nfunc f() { missing() }\n", "undefined: missing"},
		"no Go":            {"package m\n\nfunc {\n", "m_darwin.go:3"},
		"another platform": {"package m\n\nimport \"syscall\"\n\nvar X = syscall.SO_PEERCRED\n", "SO_PEERCRED"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{
				"go.mod": "module m\n\ngo 1.26\n", "m_darwin.go": tt.text, "m_linux.go": "package m\n", "m.go": "package m\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n, problems, err := check(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(problems, "\n")
			if n != 1 || (tt.want == "") != (all == "") || !strings.Contains(all, tt.want) {
				t.Errorf("%d packages, problems %q, want %q", n, all, tt.want)
			}
		})
	}
}
