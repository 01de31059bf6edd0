package assets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/paths"
)

// lockPause is the time between two looks at a lock that another process holds.
const lockPause = 50 * time.Millisecond

// Lock waits for the lock under which images are made and published. waiting is called once if somebody else has it.
func Lock(ctx context.Context, home paths.Home, waiting func(pid int)) (*guard.Lock, error) {
	if err := os.MkdirAll(home.Assets(), 0o700); err != nil {
		return nil, fmt.Errorf("lock images: %w", err)
	}
	path := filepath.Join(home.Assets(), ".lock")
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		l, err := guard.Acquire(path)
		if !errors.Is(err, guard.ErrHeld) {
			return l, err //nolint:wrapcheck // says what it did
		}
		if waiting != nil {
			pid, _, _ := guard.Holder(path)
			waiting(pid)
			waiting = nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("lock images: %w", context.Cause(ctx))
		}
	}
}

// Publish makes the finished files in dir a set, and the current one of its architecture. dir must be beneath Assets and is
// gone afterwards. The caller holds the Lock. The entry's Files and Built are filled in. Sets that nobody needs are removed.
func Publish(home paths.Home, dir string, e Entry) (*Set, error) {
	for _, name := range []string{Initrd, rootPrefix + e.RootFS, Kernel} {
		file, err := settle(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		e.Files = append(e.Files, file)
	}
	e.Built = time.Now().UTC().Format(time.RFC3339)
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("publish image: %w", err)
	}
	version := e.version()
	if err := writeLabel(dir, e); err != nil {
		return nil, err
	}
	if err := replace(dir, home.AssetVersion(version), e.Files); err != nil {
		return nil, err
	}
	m, err := manifestToChange(home)
	if err != nil {
		return nil, err
	}
	previous := m.Current[e.Arch]
	m.Sets[version], m.Current[e.Arch] = e, version
	used, known := usedByVMs(home)
	maps.DeleteFunc(m.Sets, func(v string, old Entry) bool {
		return known && old.Arch == e.Arch && v != version && v != previous && !used[v]
	})
	if err := writeManifest(home, m); err != nil {
		return nil, err
	}
	if known {
		removeUnlisted(home, m, used)
	}
	return &Set{Version: version, Entry: e, home: home}, nil
}

// settle makes a file durable and readable by all (QEMU runs as another user and is given open files), and hashes it.
func settle(path string) (File, error) {
	f, err := openRegular(path)
	if err != nil {
		return File{}, fmt.Errorf("publish image: %w", err)
	}
	defer f.Close()
	if err := readable(f); err != nil {
		return File{}, fmt.Errorf("publish image: %w", err)
	}
	if err := f.Sync(); err != nil {
		return File{}, fmt.Errorf("publish image: %w", err)
	}
	sum, n, err := hashFile(f)
	if err != nil {
		return File{}, err
	}
	return File{Name: filepath.Base(path), BLAKE3: sum, Size: n}, nil
}

// readable gives a file its mode. One that has it is not touched: that would change its time, and so unsettle what is known of a
// set from which a VM may be starting.
func readable(f *os.File) error {
	const mode = 0o644
	info, err := f.Stat()
	if err != nil || info.Mode() == mode {
		return err //nolint:wrapcheck // settle does
	}
	return f.Chmod(mode) //nolint:wrapcheck // settle does
}

// replace puts a finished directory where the set's is to be. If the same files are there already, they stay, as a VM may be
// starting from them; what is damaged makes way.
func replace(dir, to string, files []File) error {
	if intact(to, files) {
		return removeAll(dir)
	}
	old := dir + "-old" // removed with what dead builds leave, should this one die here
	if err := os.Rename(to, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish image: %w", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), atomicfile.SyncDir(dir)); err != nil {
		return fmt.Errorf("publish image: %w", err)
	}
	if err := os.Rename(dir, to); err != nil {
		return fmt.Errorf("publish image: %w", err)
	}
	return errors.Join(atomicfile.SyncDir(filepath.Dir(to)), removeAll(old))
}

func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("publish image: %w", err)
	}
	return nil
}

// intact reports whether a directory has these files, as they were built.
func intact(dir string, files []File) bool {
	for _, f := range files {
		if there, err := settle(filepath.Join(dir, f.Name)); err != nil || there != f {
			return false
		}
	}
	return true
}

func writeManifest(home paths.Home, m *Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return atomicfile.Write(home.Manifest(), append(text, '\n'), 0o600) //nolint:wrapcheck // says what it did
}

// usedByVMs are the sets that VMs boot; known is false when a VM cannot be understood: then everything stays.
func usedByVMs(home paths.Home) (used map[string]bool, known bool) {
	used = map[string]bool{}
	for _, dir := range []string{home.Sessions(), home.PersistentDir()} {
		vms, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, false
		}
		for _, vm := range vms {
			version, err := versionOf(paths.VM(filepath.Join(dir, vm.Name())))
			if err != nil {
				return nil, false
			}
			used[version] = true
		}
	}
	images, err := filepath.Glob(filepath.Join(home.Images(), "*", "image.json"))
	if err != nil {
		return nil, false
	}
	for _, path := range images {
		version, err := versionIn(path)
		if err != nil {
			return nil, false
		}
		used[version] = true
	}
	return used, true
}

// removeUnlisted removes the directories of sets that neither the manifest nor a VM names: those no longer needed, and those of
// a build that died before it wrote the manifest. A failure only costs space.
func removeUnlisted(home paths.Home, m *Manifest, used map[string]bool) {
	entries, err := os.ReadDir(home.Assets())
	if err != nil {
		return
	}
	for _, entry := range entries {
		version, ok := strings.CutPrefix(entry.Name(), "v")
		if _, listed := m.Sets[version]; ok && versionText.MatchString(version) && !listed && !used[version] {
			_ = os.RemoveAll(home.AssetVersion(version))
		}
	}
}

// versionOf is the set that a VM boots; empty when it has no spec yet.
func versionOf(vm paths.VM) (string, error) { return versionIn(vm.Spec()) }

// versionIn is the set that the description of a VM or an image names.
func versionIn(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look at VM: %w", err)
	}
	defer f.Close()
	var spec struct {
		AssetVersion string `json:"asset_version"`
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<20))
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil {
		return "", fault.Wrap(err, fault.Internal, "cannot read %s", path)
	}
	return spec.AssetVersion, nil
}
