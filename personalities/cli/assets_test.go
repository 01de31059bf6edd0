package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"capsem/core/assets"
	"capsem/core/paths"
)

// image publishes an image of a few bytes.
func image(t *testing.T, home paths.Home, content string) *assets.Set {
	t.Helper()
	lock, err := assets.Lock(t.Context(), home, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := assets.Staging(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{assets.Kernel, assets.Initrd, "rootfs.squashfs"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(name+content), 0o600))
	}
	some := assets.Hash(nil)
	set, failed := assets.Publish(home, dir, assets.Entry{
		Arch: runtime.GOARCH, Profile: "minimal", RootFS: "squashfs", Kernel: "6.12-cloud", Agent: some, Recipe: some, Lock: some,
	})
	if err := errors.Join(err, failed, lock.Release()); err != nil {
		t.Fatal(err)
	}
	return set
}

func TestAssetsWithoutAnImageSaysHowToMakeOne(t *testing.T) {
	f := newService(t)
	for _, verb := range []string{"status", "verify"} {
		got := f.capsem(nil, "assets", verb)
		if got.code != 1 || !strings.Contains(got.stderr, "no guest image yet") || !strings.Contains(got.stderr, "capsem assets build") {
			t.Errorf("%s: %+v", verb, got)
		}
	}
	f.wantCalls() // the service need not run for this
}

func TestAssetsStatusListsImagesAndMarksTheCurrentOne(t *testing.T) {
	f := newService(t)
	first, second := image(t, f.home, "1"), image(t, f.home, "2")
	got := f.capsem(nil, "assets", "status")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	current := map[string]bool{}
	for line := range strings.Lines(got.stdout) {
		current[strings.Fields(line)[0]] = strings.Contains(line, "current")
	}
	if len(current) != 3 || current[first.Version] || !current[second.Version] {
		t.Errorf("got\n%s", got.stdout)
	}

	var reply struct {
		Ready  bool
		Images []struct {
			Version, Arch, Profile, Kernel string
			Current                        bool
			Files                          []assets.File
		}
	}
	got = f.capsem(nil, "assets", "status", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &reply); err != nil {
		t.Fatal(err)
	}
	if !reply.Ready || len(reply.Images) != 2 || len(reply.Images[0].Files) != 3 || reply.Images[0].Kernel != "6.12-cloud" {
		t.Errorf("got %s", got.stdout)
	}
}

func TestAssetsStatusFailsWhenTheImageIsNotWhole(t *testing.T) {
	f := newService(t)
	set := image(t, f.home, "1")
	if err := os.Remove(filepath.Join(set.Dir(), assets.Kernel)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"assets", "status"}, {"assets", "status", "--json"}} {
		got := f.capsem(nil, args...)
		if got.code != 1 || !strings.Contains(got.stdout, set.Version) || !strings.Contains(got.stderr, assets.Kernel) || !strings.Contains(got.stderr, "capsem assets build") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestAssetsVerifyNamesTheFileThatWasAltered(t *testing.T) {
	f := newService(t)
	good, bad := image(t, f.home, "1"), image(t, f.home, "2")
	if got := f.capsem(nil, "assets", "verify"); got.code != 0 || strings.Count(got.stdout, "OK ") != 2 {
		t.Errorf("whole images: %+v", got)
	}
	path := filepath.Join(bad.Dir(), assets.Kernel)
	if err := os.WriteFile(path, []byte(assets.Kernel+"3"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := f.capsem(nil, "assets", "verify")
	if got.code != 1 || !strings.Contains(got.stdout, "OK    "+good.Version) || !strings.Contains(got.stdout, "FAIL  "+bad.Version) || !strings.Contains(got.stdout, path) {
		t.Errorf("an altered image: %+v", got)
	}
	var reply struct {
		OK     bool
		Images []struct {
			Version string
			OK      bool
			Error   string
		}
	}
	got = f.capsem(nil, "assets", "verify", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &reply); err != nil || got.code != 1 {
		t.Fatalf("%+v: %v", got, err)
	}
	for _, img := range reply.Images {
		if img.OK != (img.Version == good.Version) || img.OK != (img.Error == "") {
			t.Errorf("%+v", img)
		}
	}
	if reply.OK || len(reply.Images) != 2 {
		t.Errorf("%s", got.stdout)
	}
}

func TestAssetsBuildRefusesWhatItCannotDoBeforeItBegins(t *testing.T) {
	f := newService(t)
	for want, args := range map[string][]string{
		"minimal or dev":    {"--profile", "huge"},
		"amd64 or arm64":    {"--arch", "riscv64"},
		"contradict":        {"--locked", "--update-lock"},
		"squashfs or erofs": {"--rootfs", "ext4"},
	} {
		got := f.capsem(nil, append([]string{"assets", "build"}, args...)...)
		if got.code != 1 || !strings.Contains(got.stderr, want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if entries, err := os.ReadDir(f.home.Assets()); err == nil && len(entries) > 0 {
		t.Errorf("it began: %v", entries)
	}
}
