package machine

import (
	"archive/tar"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"capsem/core/paths"
	"capsem/core/template"
)

// homeTemplate is a finished template whose home directory has these entries.
func homeTemplate(t *testing.T, entries []tar.Header) *template.Template {
	t.Helper()
	home := paths.Home(t.TempDir())
	dir, err := template.Draft(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{template.RAMFile, template.StateFile, template.DiskFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, template.HomeFile))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, h := range entries {
		h.Size = 0
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	tpl, err := template.Finish(home, dir, template.Want{AssetVersion: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

func TestANewWorkspaceBeginsWithTheHomeOfItsTemplate(t *testing.T) {
	tpl := homeTemplate(t, []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "./.bashrc", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/tool", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "./bin/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
	})
	workspace := t.TempDir()
	defer syscall.Umask(syscall.Umask(0o077)) // as workers have it
	if err := furnish(tpl, workspace); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(workspace, "bin/tool")); err != nil || string(text) != "./bin/tool" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(workspace, "bin/tool")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if to, err := os.Readlink(filepath.Join(workspace, "bin/link")); err != nil || to != "/etc/passwd" {
		t.Errorf("%q, %v", to, err)
	}
	if err := os.Remove(filepath.Join(workspace, ".bashrc")); err != nil {
		t.Fatal(err)
	}
	if err := furnish(tpl, workspace); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(workspace, ".bashrc")); err == nil {
		t.Error("a workspace that had something in it was furnished")
	}
}

func TestAHomeLeadsNowhereOutsideOfTheWorkspace(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"dots":     {{Name: "../out", Typeflag: tar.TypeReg, Mode: 0o644}},
		"absolute": {{Name: "/out", Typeflag: tar.TypeReg, Mode: 0o644}},
		"a link": {
			{Name: "link", Typeflag: tar.TypeSymlink, Linkname: ".."},
			{Name: "link/out", Typeflag: tar.TypeReg, Mode: 0o644},
		},
		"a file as a directory": {
			{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644},
			{Name: "file/x", Typeflag: tar.TypeReg, Mode: 0o644},
		},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			workspace := filepath.Join(outside, "workspace")
			if err := os.Mkdir(workspace, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := furnish(homeTemplate(t, entries), workspace); err == nil {
				t.Error("no error")
			}
			if all, err := os.ReadDir(outside); err != nil || len(all) != 1 {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}
