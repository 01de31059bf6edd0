// Package assets is the built guest images of an installation: sets of kernel, initrd and root file system under
// assets/v<VERSION>, and the manifest with the size and BLAKE3 hash of each file. Nothing is booted that does not match it.
package assets

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"capsem/core/fault"
	"capsem/core/paths"
)

// The names of files in a set.
const (
	Kernel, Initrd             = "vmlinuz", "initrd.img"
	rootPrefix                 = "rootfs."
	formatVersion              = 1
	maxManifest, maxSets       = 1 << 20, 256
	maxFileSize          int64 = 64 << 30
)

// rebuild is what to do about anything that is wrong with the images.
const rebuild = "make it anew with: capsem assets build"

// Manifest is the file manifest.json.
type Manifest struct {
	// Format is 1.
	Format int `json:"format"`
	// Current is the version that new VMs boot, for each architecture (GOARCH words).
	Current map[string]string `json:"current"`
	// Sets are by version.
	Sets map[string]Entry `json:"sets"`
}

// Entry describes one set.
type Entry struct {
	// Arch is a GOARCH word, Profile the recipe's name, RootFS squashfs or erofs, Kernel the kernel's release.
	Arch    string `json:"arch"`
	Profile string `json:"profile"`
	RootFS  string `json:"rootfs"`
	Kernel  string `json:"kernel"`
	// Built is when, RFC 3339.
	Built string `json:"built"`
	// Agent, Recipe and Lock are the BLAKE3 hashes, in hex, of what went in.
	Agent  string `json:"agent"`
	Recipe string `json:"recipe"`
	Lock   string `json:"lock"`
	// Files are the three files.
	Files []File `json:"files"`
}

// File is one file of a set.
type File struct {
	Name string `json:"name"`
	// BLAKE3 is the hash in hex, Size in bytes.
	BLAKE3 string `json:"blake3"`
	Size   int64  `json:"size"`
}

var (
	versionText = regexp.MustCompile(`^[0-9a-f]{12}$`)
	hashText    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	wordText    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)
)

// errDamaged is in the fault of a manifest that cannot be understood.
var errDamaged = errors.New("manifest is damaged")

// readManifest reads and checks the manifest; fault.NotFound when there is none.
func readManifest(home paths.Home) (*Manifest, error) {
	f, err := openRegular(home.Manifest())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "there is no guest image yet").WithHint("make one with: capsem assets build")
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "cannot read %s: %s", home.Manifest(), err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "cannot read %s: %s", home.Manifest(), err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fault.Wrap(errors.Join(errDamaged, err), fault.Unavailable, "%s is damaged: %s", home.Manifest(), err).WithHint(rebuild)
	}
	return m, nil
}

// openRegular opens a file for reading: never through a symlink, never waiting for a pipe's other end, never anything special.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err //nolint:wrapcheck // callers say what they wanted
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err, f.Close())
	}
	return f, nil
}

func parseManifest(text []byte) (*Manifest, error) {
	if len(text) > maxManifest {
		return nil, errors.New("it is too long")
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return &m, m.check()
}

func (m *Manifest) check() error {
	if m.Format != formatVersion {
		return fmt.Errorf("its format is %d, not %d", m.Format, formatVersion)
	}
	if len(m.Sets) > maxSets || len(m.Current) > 16 {
		return errors.New("it lists too many sets")
	}
	for version, e := range m.Sets {
		if !versionText.MatchString(version) {
			return fmt.Errorf("version %.40q is malformed", version)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("set %s: %w", version, err)
		}
		if e.version() != version {
			return fmt.Errorf("set %s: its files are those of %s", version, e.version())
		}
	}
	for arch, version := range m.Current {
		if e, ok := m.Sets[version]; !ok || e.Arch != arch {
			return fmt.Errorf("the current set for %.20q is not in it", arch)
		}
	}
	return nil
}

// check holds an entry to its three files, whose names cannot lead elsewhere.
func (e Entry) check() error {
	if !slices.Contains([]string{"amd64", "arm64"}, e.Arch) || !slices.Contains([]string{"squashfs", "erofs"}, e.RootFS) {
		return errors.New("unknown architecture or root file system")
	}
	if !wordText.MatchString(e.Profile) || !wordText.MatchString(e.Kernel) {
		return errors.New("its profile or kernel is malformed")
	}
	if _, err := time.Parse(time.RFC3339, e.Built); err != nil {
		return errors.New("its time is malformed")
	}
	for _, hash := range []string{e.Agent, e.Recipe, e.Lock} {
		if !hashText.MatchString(hash) {
			return errors.New("a hash of what went in is malformed")
		}
	}
	want := []string{Initrd, rootPrefix + e.RootFS, Kernel}
	if len(e.Files) != len(want) {
		return fmt.Errorf("it has %d files instead of %d", len(e.Files), len(want))
	}
	for i, f := range e.Files {
		if f.Name != want[i] || !hashText.MatchString(f.BLAKE3) || f.Size <= 0 || f.Size > maxFileSize {
			return fmt.Errorf("file %.40q is malformed", f.Name)
		}
	}
	return nil
}

// version is made of what the files are.
func (e Entry) version() string {
	var text strings.Builder
	text.WriteString(e.Arch + "\n")
	for _, f := range e.Files {
		text.WriteString(f.Name + " " + f.BLAKE3 + "\n")
	}
	return Hash([]byte(text.String()))[:12]
}

// Hash is the BLAKE3 hash of content, in hex.
func Hash(content []byte) string {
	sum := blake3.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// hashFile is the BLAKE3 hash of what r still holds, in hex, and its length.
func hashFile(r io.Reader) (string, int64, error) {
	h := blake3.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 1<<20))
	if err != nil {
		return "", n, fmt.Errorf("hash: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), n, nil
}
