// Package template keeps saved machines from which VMs start in a fraction of a second (design D3): a guest that was booted until
// its agent answered, before anything of one VM was in it. A template is a directory templates/warm/<key> with
//
//	template.json  what it was made of and for, with the BLAKE3 of each file
//	ram            the memory, sparse
//	state          devices and CPUs, as the hypervisor writes them
//	system.qcow2   the system disk at that moment; each VM gets a copy
//	home.tar       the guest's home directory, for new workspaces; it may be missing
//
// The key is the hash of everything that went into it, so a template that does not fit any more is never found. Directories appear
// complete, by a rename.
package template

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"capsem/core/paths"
)

// The files of a template.
const (
	ManifestFile = "template.json"
	RAMFile      = "ram"
	StateFile    = "state"
	DiskFile     = "system.qcow2"
	HomeFile     = "home.tar"
)

// files are those of a template; every one has all but HomeFile.
var files = []string{RAMFile, StateFile, DiskFile, HomeFile}

// maxManifest bounds template.json, in bytes.
const maxManifest = 64 << 10

// version is raised when what is in templates changes although nothing of a Want does.
const version = "capsem template 3\n"

// draftPrefix marks a template that is being made.
const draftPrefix = "new-"

// Want is everything a template depends on. Two VMs with the same Want may start from one template.
type Want struct {
	// AssetVersion names kernel, initrd (with the agent) and rootfs by their content; Cmdline is what the kernel is told.
	AssetVersion string `json:"asset_version"`
	Cmdline      string `json:"cmdline"`
	// CPUs, MemoryMB and DiskMB are the machine's sizes.
	CPUs     int `json:"cpus"`
	MemoryMB int `json:"memory_mb"`
	DiskMB   int `json:"disk_mb"`
	// Accelerator is the one in use, Host the hypervisor, its machine type and the host's CPU and kernel.
	Accelerator string `json:"accelerator"`
	Host        string `json:"host"`
}

// Key is the name of the template.
func (w Want) Key() string {
	text, err := json.Marshal(w)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := blake3.Sum256(append([]byte(version), text...))
	return hex.EncodeToString(sum[:8])
}

// File is one file of a template.
type File struct {
	// Size is its length and BLAKE3 the hash of its content; of the memory, that of its data and where it lies.
	Size   int64  `json:"size"`
	BLAKE3 string `json:"blake3"`
}

// Manifest is template.json.
type Manifest struct {
	Want
	MadeNS int64           `json:"made_ns"`
	Files  map[string]File `json:"files"`
}

// Template is one that is complete.
type Template struct {
	// Dir is where its files are.
	Dir string
	Manifest
}

// Dir is where the templates of an installation are.
func Dir(home paths.Home) string { return filepath.Join(home.Templates(), "warm") }

var isKey = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Find returns the template for a Want; an error that is fs.ErrNotExist when there is none.
func Find(home paths.Home, want Want) (*Template, error) {
	t, err := Load(filepath.Join(Dir(home), want.Key()))
	if err != nil {
		return nil, err
	}
	if t.Want != want {
		return nil, fmt.Errorf("read template: %s is not what its name says", t.Dir)
	}
	return t, nil
}

// Load reads the manifest of the template in a directory, and looks whether its files have their sizes.
func Load(dir string) (*Template, error) {
	f, err := os.Open(filepath.Join(dir, ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	t := &Template{Dir: dir}
	if err := json.Unmarshal(text, &t.Manifest); err != nil {
		return nil, fmt.Errorf("read template %s: %w", dir, err)
	}
	for _, name := range files {
		want, ok := t.Files[name]
		if !ok && name == HomeFile {
			continue
		}
		info, err := os.Lstat(t.Path(name))
		if err != nil {
			return nil, errors.Join(errDamaged, fmt.Errorf("read template: %w", err))
		}
		if !ok || !info.Mode().IsRegular() || info.Size() != want.Size {
			return nil, fmt.Errorf("%w: %s has not the size it was made with", errDamaged, t.Path(name))
		}
	}
	return t, nil
}

// errDamaged is a template that is not what was made.
var errDamaged = errors.New("the template is damaged")

// Path is where one of its files is.
func (t *Template) Path(name string) string { return filepath.Join(t.Dir, name) }

// Key is its name.
func (t *Template) Key() string { return filepath.Base(t.Dir) }

// Used is when a VM last started from it.
func (t *Template) Used() time.Time {
	info, err := os.Stat(t.Path(ManifestFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Touch notes that a VM starts from it.
func (t *Template) Touch() {
	now := time.Now()
	_ = os.Chtimes(t.Path(ManifestFile), now, now) // only the order of disuse
}

// List returns the templates, the one that was used last first. Those that cannot be read are left out.
func List(home paths.Home) ([]*Template, error) {
	entries, err := os.ReadDir(Dir(home))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var all []*Template
	for _, e := range entries {
		if !isKey.MatchString(e.Name()) {
			continue
		}
		if t, err := Load(filepath.Join(Dir(home), e.Name())); err == nil {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *Template) int { return b.Used().Compare(a.Used()) })
	return all, nil
}

// Remove deletes a template; VMs that started from it have all they need.
func Remove(home paths.Home, key string) error {
	if !isKey.MatchString(key) {
		return fmt.Errorf("remove template: %.40q is no key", key)
	}
	// It is nobody's from here on, also when the removal is cut short.
	gone := filepath.Join(Dir(home), draftPrefix+key+"-gone")
	if err := os.Rename(filepath.Join(Dir(home), key), gone); err != nil {
		return fmt.Errorf("remove template: %w", err)
	}
	return os.RemoveAll(gone) //nolint:wrapcheck // names the file
}

// Sweep removes what was left half-made or half-removed, and what cannot be read. Nobody may be making one meanwhile.
func Sweep(home paths.Home) error {
	entries, err := os.ReadDir(Dir(home))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep templates: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(Dir(home), e.Name())
		_, bad := Load(path)
		if !isKey.MatchString(e.Name()) || bad != nil {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// Draft makes the directory in which a template is made.
func Draft(home paths.Home) (string, error) {
	if err := os.MkdirAll(Dir(home), 0o700); err != nil {
		return "", fmt.Errorf("make template: %w", err)
	}
	dir, err := os.MkdirTemp(Dir(home), draftPrefix)
	if err != nil {
		return "", fmt.Errorf("make template: %w", err)
	}
	return dir, nil
}

// Finish writes the manifest of a draft whose files are there, makes everything durable, and gives the draft its name. Files that
// do not belong to a template are removed. One of the same name that is there already is replaced.
func Finish(home paths.Home, dir string, want Want) (*Template, error) {
	m := Manifest{Want: want, MadeNS: time.Now().UnixNano(), Files: map[string]File{}}
	for _, name := range files {
		file, err := seal(filepath.Join(dir, name))
		if name == HomeFile && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("make template: %w", err)
		}
		m.Files[name] = file
	}
	if err := clean(dir); err != nil {
		return nil, err
	}
	if err := writeManifest(dir, m); err != nil {
		return nil, err
	}
	path := filepath.Join(Dir(home), want.Key())
	if err := os.RemoveAll(path); err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	if err := os.Rename(dir, path); err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	return Load(path)
}

func clean(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("make template: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(files, e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// seal hashes a finished file and makes it durable and read-only.
func seal(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return File{}, err //nolint:wrapcheck // by the caller
	}
	defer f.Close()
	sum, size, err := hash(f)
	if err == nil {
		err = errors.Join(f.Chmod(0o400), f.Sync())
	}
	return File{Size: size, BLAKE3: sum}, err
}

func writeManifest(dir string, m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("make template: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ManifestFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make template: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make template: %w", err)
	}
	return nil
}

// Lock is the lock of whoever makes a template: only one is made at a time.
func Lock(home paths.Home) string { return filepath.Join(home.Templates(), "making.lock") }
