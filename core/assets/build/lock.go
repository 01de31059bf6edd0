package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	embedded "capsem/assets"
	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/paths"
)

// Lock pins everything that an image is made of.
type Lock struct {
	// Packages are Debian's, sorted by name; Kernel is the kernel's package.
	Packages []Pinned `json:"packages"`
	Kernel   Pinned   `json:"kernel"`
	// NPM is the package-lock.json of the programs from npm; empty without any.
	NPM json.RawMessage `json:"npm,omitempty"`
}

// Pinned is one package.
type Pinned struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	// SHA256 is of the .deb, in hex.
	SHA256 string `json:"sha256"`
}

func (p Pinned) id() string { return p.Name + "=" + p.Version + "/" + p.Arch }

// maxLock bounds a lock, in bytes.
const maxLock = 16 << 20

func parseLock(text []byte) (*Lock, error) {
	var l Lock
	if len(text) > maxLock {
		return nil, errors.New("read lock: it is too long")
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	for _, p := range append(slices.Clone(l.Packages), l.Kernel) {
		if !packageName.MatchString(p.Name) || strings.ContainsAny(p.Version+p.Arch, " \n\"'\\") || p.Version == "" {
			return nil, fmt.Errorf("read lock: package %.40q is malformed", p.Name)
		}
	}
	return &l, nil
}

// lockPath is where a lock of this installation is kept: it comes before the one in the binary.
func lockPath(home paths.Home, profile, arch string) string {
	return filepath.Join(home.Assets(), "locks", profile+"-"+arch+".json")
}

// loadLock finds the lock of a profile; nil when there is none.
func loadLock(home paths.Home, profile, arch string) (*Lock, error) {
	text, err := os.ReadFile(lockPath(home, profile, arch))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = embedded.Lock(profile, arch)
	}
	if err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	if text == nil {
		return nil, nil //nolint:nilnil // no lock is no error
	}
	l, err := parseLock(text)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "the lock of %s for %s is damaged: %s", profile, arch, err).
			WithHint("make it anew with: capsem assets build --update-lock")
	}
	return l, nil
}

// encode is the lock as it is stored and hashed.
func (l *Lock) encode() ([]byte, error) {
	text, err := json.MarshalIndent(l, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write lock: %w", err)
	}
	return append(text, '\n'), nil
}

// save writes the lock of this installation.
func (l *Lock) save(home paths.Home, profile, arch string) (string, error) {
	text, err := l.encode()
	if err != nil {
		return "", err
	}
	path := lockPath(home, profile, arch)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("write lock: %w", err)
	}
	return path, atomicfile.Write(path, text, 0o644) //nolint:wrapcheck // says what it did
}

// differences lists what is not as the lock says, one line each.
func (l *Lock) differences(now *Lock) []string {
	if l == nil {
		return nil
	}
	was := map[string]Pinned{}
	for _, p := range append(slices.Clone(l.Packages), l.Kernel) {
		was[p.Name+"/"+p.Arch] = p
	}
	var out []string
	for _, p := range append(slices.Clone(now.Packages), now.Kernel) {
		old, ok := was[p.Name+"/"+p.Arch]
		delete(was, p.Name+"/"+p.Arch)
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s %s is new", p.Name, p.Version))
		case old.Version != p.Version:
			out = append(out, fmt.Sprintf("%s is %s, locked %s", p.Name, p.Version, old.Version))
		case old.SHA256 != p.SHA256:
			out = append(out, fmt.Sprintf("%s %s has another content than was locked", p.Name, p.Version))
		}
	}
	for _, p := range was {
		out = append(out, p.Name+" is not installed any more")
	}
	slices.Sort(out)
	return out
}

// preferences make apt take the locked versions where it can get them.
func (l *Lock) preferences() string {
	var b strings.Builder
	for _, p := range append(slices.Clone(l.Packages), l.Kernel) {
		fmt.Fprintf(&b, "Package: %s\nPin: version %s\nPin-Priority: 1001\n\n", p.Name, p.Version)
	}
	return b.String()
}
