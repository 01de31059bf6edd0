// Package checkpoint keeps the memory of a suspended VM: the directory "suspended" in the VM's own, with
//
//	checkpoint.json  what the state depends on, and its hash
//	state            memory, devices and CPUs, as the hypervisor writes them
//	extra            what the worker itself must know to go on: the state of the shared directories
//	copied           is there when all of this is a copy, and so is the workspace
//
// It belongs to the system disk as it was at that moment, so it is used once: whoever goes on from it takes it away before the
// machine runs. The directory appears complete, by a rename, and is never half-used.
package checkpoint

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"capsem/core/atomicfile"
	"capsem/core/template"
)

const (
	name, draft, used       = "suspended", "suspended.new", "suspended.used"
	manifestFile, stateFile = "checkpoint.json", "state"
	extraFile, copiedFile   = "extra", "copied"
	// maxExtra bounds what a worker keeps, in bytes.
	maxExtra = 256 << 20
	// maxManifest bounds checkpoint.json, in bytes.
	maxManifest = 64 << 10
)

// ErrMisfit is a checkpoint that this machine, hypervisor or image does not fit any more, or that is damaged.
var ErrMisfit = errors.New("the saved state cannot be used")

// ErrTooLarge is a VM that has too much in use to be saved.
var ErrTooLarge = errors.New("the VM has too much in use to be saved")

// manifest is checkpoint.json.
type manifest struct {
	// Want is what the state depends on; the sizes and the image are the VM's own.
	template.Want
	MadeNS int64  `json:"made_ns"`
	Size   int64  `json:"size"`
	BLAKE3 string `json:"blake3"`
	// ExtraBLAKE3 is of the file extra; empty when there is none.
	ExtraBLAKE3 string `json:"extra_blake3,omitempty"`
}

// Saved is a checkpoint that can be gone on from.
type Saved struct {
	// State is what the hypervisor wrote, Extra what the worker did.
	State *os.File
	Extra []byte
	// Copied says that the workspace is a copy of the one that the VM had.
	Copied bool
}

// Exists reports whether a VM's directory holds a checkpoint.
func Exists(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, name, manifestFile))
	return err == nil
}

// Make writes a checkpoint: save fills the state and returns what else to keep. When it returns without an error everything is on the disk.
func Make(dir string, want template.Want, save func(to *os.File) (extra []byte, err error)) error {
	temp := filepath.Join(dir, draft)
	err := errors.Join(os.RemoveAll(temp), os.RemoveAll(filepath.Join(dir, used)))
	if err == nil {
		err = os.Mkdir(temp, 0o700)
	}
	if err == nil {
		err = fill(temp, want, save)
	}
	if err == nil {
		err = os.RemoveAll(filepath.Join(dir, name))
	}
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save VM: %w", err), os.RemoveAll(temp))
	}
	if err := atomicfile.SyncDir(dir); err != nil { // the VM goes on, and nobody may go on from this later
		return errors.Join(fmt.Errorf("save VM: %w", err), os.Rename(filepath.Join(dir, name), temp), os.RemoveAll(temp))
	}
	return nil
}

func fill(temp string, want template.Want, save func(to *os.File) (extra []byte, err error)) error {
	f, err := os.OpenFile(filepath.Join(temp, stateFile), os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	defer f.Close()
	extra, err := save(f)
	if err != nil {
		return err
	}
	if len(extra) > maxExtra { // it could not be gone on from
		return fmt.Errorf("%w: %d MB of what the VM has in use, more than %d", ErrTooLarge, len(extra)>>20, maxExtra>>20)
	}
	m := manifest{Want: want, MadeNS: time.Now().UnixNano()}
	if len(extra) > 0 {
		hash := blake3.Sum256(extra)
		m.ExtraBLAKE3 = hex.EncodeToString(hash[:])
		if err := atomicfile.Write(filepath.Join(temp, extraFile), extra, 0o600); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
	}
	if m.BLAKE3, m.Size, err = sum(f); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	return atomicfile.Write(filepath.Join(temp, manifestFile), append(text, '\n'), 0o600) //nolint:wrapcheck // by the caller
}

func sum(f *os.File) (string, int64, error) {
	h := blake3.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", 0, err //nolint:wrapcheck // by the caller
	}
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err //nolint:wrapcheck // by the caller
}

// Open opens a VM's checkpoint, held to its hashes. One that does not fit is ErrMisfit.
func Open(dir string, want template.Want) (*Saved, error) {
	m, err := load(filepath.Join(dir, name, manifestFile))
	if err != nil {
		return nil, err
	}
	if m.Want != want {
		return nil, fmt.Errorf("%w: %s", ErrMisfit, difference(m.Want, want))
	}
	s := &Saved{}
	if s.Extra, err = readExtra(filepath.Join(dir, name, extraFile), m.ExtraBLAKE3); err != nil {
		return nil, err
	}
	_, err = os.Lstat(filepath.Join(dir, name, copiedFile))
	s.Copied = err == nil
	s.State, err = os.OpenFile(filepath.Join(dir, name, stateFile), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMisfit, err)
	}
	hash, size, err := sum(s.State)
	if err == nil && (hash != m.BLAKE3 || size != m.Size) {
		err = fmt.Errorf("%w: it is damaged", ErrMisfit)
	}
	if err == nil {
		_, err = s.State.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, s.State.Close())
	}
	return s, nil
}

// Check holds the checkpoint in a directory to its hashes, whether or not this machine fits it. One that is damaged is ErrMisfit.
func Check(dir string) error {
	m, err := load(filepath.Join(dir, name, manifestFile))
	if err != nil {
		return err
	}
	s, err := Open(dir, m.Want)
	if err != nil {
		return err
	}
	return s.State.Close() //nolint:wrapcheck // only read
}

func readExtra(path, want string) ([]byte, error) {
	if want == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMisfit, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxExtra))
	if err != nil {
		return nil, fmt.Errorf("read saved state: %w", err)
	}
	if hash := blake3.Sum256(data); hex.EncodeToString(hash[:]) != want {
		return nil, fmt.Errorf("%w: it is damaged", ErrMisfit)
	}
	return data, nil
}

func load(path string) (manifest, error) {
	var m manifest
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return m, fmt.Errorf("read saved state: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return m, fmt.Errorf("read saved state: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: its description is damaged", ErrMisfit)
	}
	return m, nil
}

// difference says what has changed since.
func difference(was, is template.Want) string {
	switch {
	case was.Host != is.Host:
		return "QEMU or this machine's processor has changed since"
	case was.Accelerator != is.Accelerator:
		return fmt.Sprintf("it was made with accelerator %.10s, and this is %.10s", was.Accelerator, is.Accelerator)
	case was.AssetVersion != is.AssetVersion || was.Cmdline != is.Cmdline:
		return "the image or the kernel's command line has changed since"
	}
	return "the VM's sizes have changed since"
}

// Take takes the checkpoint away, since the machine is about to run from it. giveBack undoes that for a machine that never ran.
func Take(dir string) (giveBack func() error, err error) {
	from, to := filepath.Join(dir, name), filepath.Join(dir, used)
	err = os.RemoveAll(to)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err == nil {
		err = atomicfile.SyncDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("take saved state: %w", err)
	}
	return func() error { return os.Rename(to, from) }, nil
}

// Discard removes what Take has taken away, and, when all is set, also a checkpoint that was not used.
func Discard(dir string, all bool) error {
	err := errors.Join(os.RemoveAll(filepath.Join(dir, used)), os.RemoveAll(filepath.Join(dir, draft)))
	if all {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove saved state: %w", err)
	}
	return nil
}

// Copy copies the checkpoint of one directory to another: the same file where that is possible, since nobody ever writes to it.
func Copy(from, to string) error {
	if err := os.Mkdir(filepath.Join(to, name), 0o700); err != nil {
		return fmt.Errorf("copy saved state: %w", err)
	}
	if err := os.WriteFile(filepath.Join(to, name, copiedFile), nil, 0o600); err != nil {
		return fmt.Errorf("copy saved state: %w", err)
	}
	for _, file := range []string{stateFile, extraFile, manifestFile} { // the one without which it does not exist comes last
		src, dst := filepath.Join(from, name, file), filepath.Join(to, name, file)
		err := os.Link(src, dst)
		if err == nil || file == extraFile && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := copyFile(src, dst); err != nil {
			return fmt.Errorf("copy saved state: %w", err)
		}
	}
	return nil
}

func copyFile(src, dst string) error {
	in, err := os.OpenFile(src, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
