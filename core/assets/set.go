package assets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/paths"
)

// Set is one built image.
type Set struct {
	// Version names it; Entry describes it.
	Version string
	Entry
	home paths.Home
}

// RootFSType is squashfs or erofs.
func (s *Set) RootFSType() string { return s.RootFS }

// Dir is where its files are.
func (s *Set) Dir() string { return s.home.AssetVersion(s.Version) }

// Current is the set that new VMs of an architecture boot; fault.NotFound when there is none.
func Current(home paths.Home, arch string) (*Set, error) {
	m, err := readManifest(home)
	if err != nil {
		return nil, err
	}
	version, ok := m.Current[arch]
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no guest image for %s yet", arch).WithHint("make one with: capsem assets build")
	}
	return &Set{Version: version, Entry: m.Sets[version], home: home}, nil
}

// Load is the set of that version; fault.NotFound when it is not there (any more).
func Load(home paths.Home, arch, version string) (*Set, error) {
	m, err := readManifest(home)
	if err != nil {
		return nil, err
	}
	e, ok := m.Sets[version]
	if !ok || e.Arch != arch {
		return nil, fault.New(fault.NotFound, "guest image %.20q for %s is not installed", version, arch).WithHint("see capsem assets status")
	}
	return &Set{Version: version, Entry: e, home: home}, nil
}

// All lists the sets there are.
func All(home paths.Home) ([]*Set, error) {
	m, err := readManifest(home)
	if err != nil {
		return nil, err
	}
	var out []*Set
	for version, e := range m.Sets {
		out = append(out, &Set{Version: version, Entry: e, home: home})
	}
	return out, nil
}

// Health says whether VMs of an architecture can boot, without reading the files' content.
func Health(home paths.Home, arch string) api.AssetHealth {
	s, err := Current(home, arch)
	if err != nil {
		return api.AssetHealth{Missing: []string{"manifest.json"}}
	}
	h := api.AssetHealth{Version: s.Version}
	for _, f := range s.Files {
		info, err := os.Lstat(filepath.Join(s.Dir(), f.Name))
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
			h.Missing = append(h.Missing, filepath.Join("v"+s.Version, f.Name))
		}
	}
	h.Ready = len(h.Missing) == 0
	return h
}

// Opened is a set that was checked, open for reading. The files cannot change under the reader as long as they are only ever
// replaced, which is all this package does.
type Opened struct {
	Kernel, Initrd, RootFS *os.File
}

// Close gives the files back.
func (o *Opened) Close() error {
	var err error
	for _, f := range []*os.File{o.Kernel, o.Initrd, o.RootFS} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Open opens the files and holds them to the manifest. A verdict is remembered until a file's inode, size or times change. A
// file that is missing, cut or altered is a fault that names it.
func (s *Set) Open(ctx context.Context) (*Opened, error) { return s.open(ctx, readVerdicts(s.home)) }

// Verify is Open without the memory of earlier verdicts.
func (s *Set) Verify(ctx context.Context) error {
	o, err := s.open(ctx, &verdicts{home: s.home})
	if err != nil {
		return err
	}
	return o.Close()
}

func (s *Set) open(ctx context.Context, known *verdicts) (*Opened, error) {
	o := &Opened{}
	for _, file := range s.Files {
		f, err := s.openFile(ctx, file, known)
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		switch file.Name {
		case Kernel:
			o.Kernel = f
		case Initrd:
			o.Initrd = f
		default:
			o.RootFS = f
		}
	}
	known.save()
	return o, nil
}

func (s *Set) openFile(ctx context.Context, file File, known *verdicts) (*os.File, error) {
	path := filepath.Join(s.Dir(), file.Name)
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "the guest image is incomplete: %s is missing", path).WithHint(rebuild)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "cannot open %s: %s", path, err).WithHint(rebuild)
	}
	if err := check(ctx, f, file, known); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// check holds an open file to the manifest and leaves it at its beginning. A file that was touched while it was read is read once
// more: a backup, a link or other rights change its times and not its content.
func check(ctx context.Context, f *os.File, file File, known *verdicts) error {
	for range 2 {
		if untouched, err := checkOnce(ctx, f, file, known); untouched || err != nil {
			return err
		}
	}
	return fault.New(fault.Unavailable, "%s changed while it was checked", f.Name()).WithHint(rebuild)
}

// checkOnce reads the file, unless a verdict is known. untouched says that nobody has touched it meanwhile.
func checkOnce(ctx context.Context, f *os.File, file File, known *verdicts) (untouched bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("check image: %w", err)
	}
	if info.Size() != file.Size {
		return false, fault.New(fault.Unavailable, "%s is damaged: it has %d bytes instead of %d", f.Name(), info.Size(), file.Size).WithHint(rebuild)
	}
	if known.holds(info, file.BLAKE3) {
		return true, nil
	}
	sum, _, err := hashFile(&cancelled{ctx, f})
	if ctx.Err() != nil {
		return false, fmt.Errorf("check image: %w", context.Cause(ctx))
	}
	if err != nil {
		return false, fault.Wrap(err, fault.Unavailable, "cannot read %s: %s", f.Name(), err).WithHint(rebuild)
	}
	if sum != file.BLAKE3 {
		return false, fault.New(fault.Unavailable, "%s is not what was built: its content has changed, so it is not booted", f.Name()).WithHint(rebuild)
	}
	if _, err := f.Seek(0, 0); err != nil {
		return false, fmt.Errorf("check image: %w", err)
	}
	after, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("check image: %w", err)
	}
	if identity(after) != identity(info) {
		return false, nil
	}
	known.add(info, sum)
	return true, nil
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other way
	f   *os.File
}

// Read reads unless the context has ended.
func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // the caller does
	}
	return c.f.Read(p) //nolint:wrapcheck // io.EOF is looked at
}
