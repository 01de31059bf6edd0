// Package image keeps what VMs were forked into: images/<name> with
//
//	image.json     what it is, with the BLAKE3 of the disk
//	system.qcow2   the system disk, whole: it refers to no other
//	workspace/     the files of the workspace
//	suspended/     the memory of a VM that ran (core/checkpoint); an extra, without which a VM of the image boots
//
// An image needs nothing but its asset version, so deleting the VM or the image it came from never breaks it. Directories appear
// complete, by a rename. The checkpoints of a VM are kept in the same way, in its own directory: checkpoints/<name>.
package image

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/tree"
)

const (
	manifestFile, diskFile, workspace = "image.json", "system.qcow2", "workspace"
	// newSuffix marks an image that is being made, goneSuffix one that is being removed. No name has a dot.
	newSuffix, goneSuffix = ".new", ".gone"
	// maxManifest bounds image.json, in bytes: an environment may be long.
	maxManifest = 32 << 20
)

// Manifest is image.json.
type Manifest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	CreatedNS   int64  `json:"created_ns"`
	// AssetVersion is the set of kernel, initrd and root image that its VMs boot.
	AssetVersion string `json:"asset_version"`
	// CPUs, MemoryMB and DiskMB are the VM's that it was made of.
	CPUs     int `json:"cpus"`
	MemoryMB int `json:"memory_mb"`
	DiskMB   int `json:"disk_mb"`
	// Env is the environment of every command in its VMs.
	Env map[string]string `json:"env,omitempty"`
	// Mounts are directories of this host that its VMs share.
	Mounts []proto.Mount `json:"mounts,omitempty"`
	// Family is what the placeholders in the VM's memory are derived from, so that they go on to mean what they did.
	Family string `json:"family,omitempty"`
	// Secrets are the names of those that the VM had, and its VMs have; nil is all.
	Secrets []string `json:"secrets,omitzero"`
	// Policy are the rules of the VM's own, which are those of its VMs too.
	Policy string `json:"policy,omitempty"`
	// From is the VM that it was forked from, Parent the image of that; for people only.
	From   string `json:"from"`
	Parent string `json:"parent,omitempty"`
	// Budget is the family of that VM, whose budgets VMs of the image share.
	Budget string `json:"budget,omitempty"`
	// DiskSize and DiskBLAKE3 are of system.qcow2.
	DiskSize   int64  `json:"disk_size"`
	DiskBLAKE3 string `json:"disk_blake3"`
}

// Image is one that is complete.
type Image struct {
	Dir string
	Manifest
}

// Shelf is a directory of images.
type Shelf struct {
	Dir string
	// word is what people call what is kept there, list the command that lists it.
	word, list string
}

// Images is where an installation has its images.
func Images(home paths.Home) Shelf { return Shelf{home.Images(), "image", "capsem image list"} }

// Checkpoints is where a VM has its checkpoints.
func Checkpoints(vm paths.VM, id string) Shelf {
	return Shelf{vm.Checkpoints(), "checkpoint", "capsem checkpoint --list " + id}
}

// HasMemory reports whether VMs of the image go on with what ran.
func (i *Image) HasMemory() bool { return checkpoint.Exists(i.Dir) }

// Find returns an image by its name; fault.NotFound when there is none.
func (s Shelf) Find(name string) (*Image, error) {
	if err := api.CheckName(name); err != nil {
		return nil, fault.New(fault.Invalid, "%.80q cannot be a name here", name).WithHint("see %s", s.list)
	}
	i, err := load(filepath.Join(s.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.none(name)
	}
	return i, err
}

func (s Shelf) none(name string) error {
	return fault.New(fault.NotFound, "there is no %s %q", s.word, name).WithHint("see %s", s.list)
}

// damaged says what is wrong with an image, or with a checkpoint: those are in a VM's directory.
func damaged(dir, what string) error {
	name, shelf := filepath.Base(dir), filepath.Dir(dir)
	if vm := paths.VM(filepath.Dir(shelf)); vm.Checkpoints() == shelf {
		return fault.New(fault.Internal, "checkpoint %s is damaged: %s", name, what).WithHint("delete it: capsem checkpoint --delete %s %s", filepath.Base(vm.Dir()), name)
	}
	return fault.New(fault.Internal, "image %s is damaged: %s", name, what).WithHint("delete it: capsem image delete %s", name)
}

func load(dir string) (*Image, error) {
	f, err := os.OpenFile(filepath.Join(dir, manifestFile), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	i := &Image{Dir: dir}
	if err := json.Unmarshal(text, &i.Manifest); err != nil || i.Name != filepath.Base(dir) {
		return nil, damaged(dir, manifestFile+" cannot be read")
	}
	return i, nil
}

// List returns the images in the order of their names. Those that cannot be read are left out.
func (s Shelf) List() ([]*Image, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var all []*Image
	for _, e := range entries {
		if api.CheckName(e.Name()) != nil {
			continue
		}
		if i, err := load(filepath.Join(s.Dir, e.Name())); err == nil {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b *Image) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Delete removes an image. VMs of it have all they need.
func (s Shelf) Delete(name string) error {
	if err := api.CheckName(name); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	dir := filepath.Join(s.Dir, name)
	if _, err := os.Lstat(dir); err != nil {
		return s.none(name)
	}
	unlock, err := lock(dir, syscall.LOCK_EX)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.none(name)
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fault.New(fault.Conflict, "%s %q is in use: it is being copied", s.word, name).WithHint("try again when that is done")
	case err != nil:
		return fmt.Errorf("delete %s: %w", s.word, err)
	}
	gone := dir + goneSuffix
	err = errors.Join(tree.Remove(gone), os.Rename(dir, gone)) // nobody's from here on, also when this is cut short
	unlock()
	if err != nil {
		return fmt.Errorf("delete image: %w", err)
	}
	return tree.Remove(gone) //nolint:wrapcheck // names the file
}

// Sweep removes what was left half-made or half-removed. Nobody may be making an image meanwhile.
func (s Shelf) Sweep() error {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), newSuffix) || strings.HasSuffix(e.Name(), goneSuffix) {
			err = errors.Join(err, tree.Remove(filepath.Join(s.Dir, e.Name())))
		}
	}
	return err
}

// Begin makes the directory in which an image is made; a name that is taken is fault.Conflict.
func (s Shelf) Begin(name string) (dir string, err error) {
	if err := api.CheckName(name); err != nil {
		return "", fault.New(fault.Invalid, "%.80q cannot be a name here", name).WithHint("use 1-64 letters, digits, - or _, beginning with a letter or digit")
	}
	final := filepath.Join(s.Dir, name)
	if _, err := os.Lstat(final); err == nil {
		return "", fault.New(fault.Conflict, "%s %q is there already", s.word, name).WithHint("choose another name, or delete that one; see %s", s.list)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", fmt.Errorf("make %s: %w", s.word, err)
	}
	if err := os.Mkdir(final+newSuffix, 0o700); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make %s: %w", s.word, err)
		}
		return "", fault.Wrap(err, fault.Conflict, "%s %q is being made", s.word, name)
	}
	return final + newSuffix, nil
}

// Abandon removes an image that was not finished.
func Abandon(dir string) error { return tree.Remove(dir) } //nolint:wrapcheck // names the file

// Finish writes the manifest of an image whose files are there, makes all durable, and gives it its name.
func Finish(dir string, m Manifest) (*Image, error) {
	m.CreatedNS = time.Now().UnixNano()
	f, err := os.Open(filepath.Join(dir, diskFile))
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	defer f.Close()
	m.DiskBLAKE3, m.DiskSize, err = sum(f)
	var text []byte
	if err == nil {
		text, err = json.MarshalIndent(m, "", "  ")
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(dir, manifestFile), append(text, '\n'), 0o600)
	}
	if err == nil {
		err = syncTree(dir)
	}
	final := strings.TrimSuffix(dir, newSuffix)
	if err == nil {
		err = os.Rename(dir, final)
	}
	if err == nil {
		err = atomicfile.SyncDir(filepath.Dir(final))
	}
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	return load(final)
}

func sum(f *os.File) (string, int64, error) {
	h := blake3.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err //nolint:wrapcheck // by the caller
}

// CopyVM copies disk, workspace and, where there is one, the checkpoint of a VM that does not run.
func CopyVM(vm paths.VM, dir string) error {
	return copyAll(vm.Dir(), dir)
}

// Place makes the files of a new VM of the image in its directory, durably. The disk is held to its hash.
func (i *Image) Place(vm string, withMemory bool) error {
	err := i.place(vm, withMemory)
	if err == nil {
		err = syncTree(vm)
	}
	return err
}

func (i *Image) place(vm string, withMemory bool) error {
	unlock, err := i.use()
	if err != nil {
		return err
	}
	defer unlock()
	f, err := os.Open(filepath.Join(i.Dir, diskFile))
	if err != nil {
		return fmt.Errorf("use image %s: %w", i.Name, err)
	}
	defer f.Close()
	hash, size, err := sum(f)
	if err == nil && (hash != i.DiskBLAKE3 || size != i.DiskSize) {
		err = damaged(i.Dir, "the content of its disk has changed")
	}
	if err != nil {
		return err
	}
	if err := copyAll(i.Dir, vm); err != nil {
		return err
	}
	if !withMemory {
		return checkpoint.Discard(vm, true) //nolint:wrapcheck // says what it did
	}
	return nil
}

func copyAll(from, to string) error {
	err := CopyDisk(filepath.Join(from, diskFile), filepath.Join(to, diskFile))
	if err == nil && checkpoint.Exists(from) {
		err = checkpoint.Copy(from, to)
	}
	if err == nil {
		err = CopyWorkspace(from, to)
	}
	return err
}

// CopyWorkspace copies the workspace of one directory of a VM or image to another.
func CopyWorkspace(from, to string) error {
	return copyTree(filepath.Join(from, workspace), filepath.Join(to, workspace))
}

// CopyDisk copies a disk that nobody writes to: shared blocks where the file system can, else without its holes.
func CopyDisk(from, to string) error {
	src, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	if err := errors.Join(copyData(dst, src), dst.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy disk: %w", err), os.Remove(to))
	}
	return nil
}
