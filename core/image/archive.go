package image

import (
	"archive/tar"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/tree"
)

// An archive is a tar file, packed by zstd: image.json, system.qcow2, what is in workspace/, and at the end sums.json, which has the
// BLAKE3 of every file before it. The memory of an image stays where it was made: it fits no other machine, and a hypervisor should
// not read what a stranger wrote.
const sumsFile = "sums.json"

const (
	// maxEntries bounds the files of an archive, maxSums the list of their hashes, in bytes, maxWindow what unpacking may take.
	maxEntries = 1 << 20
	maxSums    = 256 << 20
	maxWindow  = 64 << 20
	// maxFile is the longest file, holes included: more than ext4 can have.
	maxFile = 16 << 40
	// reserve is what importing leaves free, in bytes: VMs that run stand still on a full disk.
	reserve = 256 << 20
)

// Export writes an image as one archive.
func (i *Image) Export(w io.Writer) error {
	z, err := zstd.NewWriter(w)
	if err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	a := &packer{tar: tar.NewWriter(z), sums: map[string]string{}}
	unlock, err := i.use()
	if err != nil {
		return err
	}
	defer unlock()
	err = a.pack(i)
	if err := errors.Join(err, a.tar.Close(), z.Close()); err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	return nil
}

type packer struct {
	tar  *tar.Writer
	sums map[string]string
}

func (a *packer) pack(i *Image) error {
	own, err := tree.Open(i.Dir)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	defer own.Close()
	for _, name := range []string{manifestFile, diskFile} {
		if err := a.entry(own, name, name, 0); err != nil {
			return err
		}
	}
	if a.sums[diskFile] != i.DiskBLAKE3 {
		return fault.New(fault.Internal, "image %s is damaged: the content of its disk has changed", i.Name)
	}
	top, err := tree.Open(filepath.Join(i.Dir, workspace))
	if err == nil {
		err = errors.Join(a.dir(top, workspace, 0), top.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := json.Marshal(a.sums)
	if err == nil {
		err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: sumsFile, Mode: 0o600, Size: int64(len(text))})
	}
	if err == nil {
		_, err = a.tar.Write(text)
	}
	return err //nolint:wrapcheck // by the caller
}

// dir packs what is in an open directory, which the archive calls name.
func (a *packer) dir(d *tree.Dir, name string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.200s...: too deep", name)
	}
	names, err := d.Names()
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	slices.Sort(names)
	for _, n := range names {
		if err := a.entry(d, n, path.Join(name, n), depth); err != nil {
			return err
		}
	}
	return nil
}

func (a *packer) entry(d *tree.Dir, n, name string, depth int) error {
	info, err := d.Lstat(n)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	switch info.Mode.Type() {
	case 0:
		f, err := d.File(n)
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		return errors.Join(a.file(f, name, info.Mode.Perm()), f.Close())
	case fs.ModeDir:
		if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(info.Mode.Perm())}); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		return inDir(d, n, func(sub *tree.Dir) error { return a.dir(sub, name, depth+1) })
	case fs.ModeSymlink:
		target, err := d.Readlink(n)
		if err == nil {
			a.sums[inText(name)] = inText("-> " + target)
			err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
		}
		return err //nolint:wrapcheck // by the caller
	}
	return nil // sockets and the like live only as long as who made them
}

// file packs an open file.
func (a *packer) file(f *os.File, name string, mode fs.FileMode) error {
	info, err := f.Stat()
	if err == nil {
		err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: info.Size()})
	}
	h := blake3.New()
	if err == nil {
		_, err = io.Copy(io.MultiWriter(a.tar, h), f)
	}
	a.sums[inText(name)] = hex.EncodeToString(h.Sum(nil))
	return err //nolint:wrapcheck // by the caller
}

// inText is a name as the list of hashes has it: JSON is text, and names need not be.
func inText(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.QuoteToASCII(name) // no name of an archive begins so
}

// Import makes an image of an archive under a name. One that is cut, changed or makes no sense is refused whole.
func Import(home paths.Home, name string, r io.Reader) (*Image, error) {
	dir, err := Images(home).Begin(name)
	if err != nil {
		return nil, err
	}
	m, err := unpack(dir, r)
	if err == nil {
		err = checkDisk(filepath.Join(dir, diskFile), m.DiskMB)
	}
	if err == nil {
		err = checkpoint.Discard(dir, true) // none can be there
	}
	if err == nil {
		if _, missing := os.Stat(home.AssetVersion(m.AssetVersion)); missing != nil || m.AssetVersion == "" || strings.Contains(m.AssetVersion, "/") {
			err = fault.New(fault.Unavailable, "the image needs guest image %.20q, which is not here", m.AssetVersion).WithHint("make the same one: capsem assets build with the same recipe and lock")
		}
	}
	var i *Image
	if err == nil {
		// Nobody else says what of this host, of the network and of whose budget its VMs get.
		m.Name, m.Mounts, m.Policy, m.Budget, m.Family, m.Secrets = name, nil, "", "", "", nil
		i, err = Finish(dir, m)
	}
	if err != nil {
		return nil, errors.Join(err, Abandon(dir))
	}
	return i, nil
}

// errArchive says what is wrong with an archive.
func errArchive(format string, args ...any) error {
	return fault.New(fault.Invalid, "this is no image that capsem exported: "+format, args...)
}

func unpack(dir string, r io.Reader) (Manifest, error) {
	var m Manifest
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return m, errArchive("%v", err)
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, fmt.Errorf("import image: %w", err)
	}
	defer root.Close()
	if err := root.Mkdir(workspace, 0o700); err != nil {
		return m, fmt.Errorf("import image: %w", err)
	}
	work, err := root.OpenRoot(workspace) // links in it lead nowhere else, not even to the image's own files
	if err != nil {
		return m, fmt.Errorf("import image: %w", err)
	}
	defer work.Close()
	u := &unpacker{root: root, work: work, tar: tar.NewReader(z), sums: map[string]string{}, free: func() (int64, error) { return freeSpace(dir) }}
	want, err := u.all()
	if err != nil {
		return m, err
	}
	if len(want) != len(u.sums) {
		return m, errArchive("files are missing or too many")
	}
	for name, sum := range want {
		if u.sums[name] != sum {
			return m, errArchive("%.80q is damaged", name)
		}
	}
	text, err := root.ReadFile(manifestFile)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil {
		err = check(m)
	}
	if err != nil {
		return m, errArchive("its description makes no sense")
	}
	return m, nil
}

// check holds what a stranger wrote to what VMs may be made with here.
func check(m Manifest) error {
	if m.CPUs < 1 || m.MemoryMB < 1 || m.DiskMB < 1 {
		return errors.New("a size is missing")
	}
	return errors.Join(api.CheckSizes(m.CPUs, m.MemoryMB, m.DiskMB), proto.ValidateEnv(m.Env))
}

type unpacker struct {
	// root is the image's directory, work its workspace.
	root, work *os.Root
	tar        *tar.Reader
	sums       map[string]string
	// free tells what may still be written, names is the length of all names so far, in bytes.
	free  func() (int64, error)
	names int64
}

// freeSpace is what is free on a directory's disk, less what its VMs need to go on.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("import image: %w", err)
	}
	return int64(st.Bavail)*int64(st.Bsize) - reserve, nil //nolint:gosec,unconvert // a size on disk; the types differ by system
}

// bound refuses entries that are more than an image has, or than the disk has room for.
func (u *unpacker) bound(h *tar.Header) error {
	u.names += int64(len(h.Name) + len(h.Linkname))
	switch {
	case len(h.Name) > proto.MaxPath || len(h.Linkname) > proto.MaxPath || u.names > maxSums:
		return errArchive("its names are too long")
	case h.Name == manifestFile && h.Size > maxManifest:
		return errArchive("its description is too long")
	case h.Size < 0 || h.Size > maxFile:
		return errArchive("%.80q is too long", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // holes that are told of cost the sender nothing, and to read them takes as long as anything
			return errArchive("%.80q is told of in pieces", h.Name)
		}
	}
	return nil
}

// all unpacks until the list of hashes, which is the last entry.
func (u *unpacker) all() (map[string]string, error) {
	for range maxEntries {
		h, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil, errArchive("it ends too early")
		}
		if err != nil {
			return nil, errArchive("%v", err)
		}
		if h.Name == sumsFile {
			return u.want(h.Size)
		}
		if err := u.one(h); err != nil {
			return nil, err
		}
	}
	return nil, errArchive("it has too many files")
}

// want reads the list of hashes, which is no longer than the files before it need.
func (u *unpacker) want(size int64) (want map[string]string, err error) {
	const escaped, each = 6, 128 // a byte of a name, and a hash with what is around it
	if size <= min(maxSums, u.names*escaped+int64(len(u.sums)+1)*each) {
		err = json.NewDecoder(u.tar).Decode(&want)
	}
	if err != nil || want == nil {
		return nil, errArchive("its hashes cannot be read")
	}
	return want, nil
}

// one unpacks one entry, confined to the image's directory.
func (u *unpacker) one(h *tar.Header) error {
	if err := u.bound(h); err != nil {
		return err
	}
	name := path.Clean(h.Name)
	rel, inside := strings.CutPrefix(name, workspace+"/")
	inside = inside && filepath.IsLocal(rel)
	switch {
	case h.Typeflag == tar.TypeReg && (name == manifestFile || name == diskFile):
		return u.file(u.root, name, name, h)
	case h.Typeflag == tar.TypeReg && inside:
		return u.file(u.work, rel, name, h)
	case h.Typeflag == tar.TypeDir && inside:
		return u.done(u.work.MkdirAll(rel, fs.FileMode(h.Mode).Perm()|0o700)) //nolint:gosec // only the permissions are taken
	case h.Typeflag == tar.TypeSymlink && inside:
		u.sums[inText(name)] = inText("-> " + h.Linkname)
		return u.done(errors.Join(u.work.MkdirAll(path.Dir(rel), 0o700), u.work.Symlink(h.Linkname, rel)))
	}
	return errArchive("%.80q does not belong in it", h.Name)
}

// file unpacks a regular file to rel beneath a root; name is what the archive calls it.
func (u *unpacker) file(root *os.Root, rel, name string, h *tar.Header) error {
	if err := root.MkdirAll(path.Dir(rel), 0o700); err != nil {
		return u.done(err)
	}
	f, err := root.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode).Perm()|0o600) //nolint:gosec // only the permissions are taken
	if err != nil {
		return u.done(err)
	}
	defer f.Close()
	sum := blake3.New()
	from, to := &source{r: u.tar}, &spreader{f: f, free: u.free}
	if _, err := io.Copy(io.MultiWriter(to, sum), from); err != nil {
		if from.err != nil {
			return errArchive("it is cut or damaged (%v)", from.err)
		}
		return u.done(err)
	}
	u.sums[inText(name)] = hex.EncodeToString(sum.Sum(nil))
	return u.done(errors.Join(to.finish(), f.Close()))
}

// source tells what is wrong with an archive from what is wrong with the disk it is unpacked to.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err //nolint:wrapcheck // a reader
}

func (u *unpacker) done(err error) error {
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	return nil
}

// qcow2 header fields: https://www.qemu.org/docs/master/interop/qcow2.html
const (
	qcow2Magic     = 0x514649fb
	qcow2External  = 1 << 2 // incompatible feature: the data is in another file
	qcow2Corrupt   = 1 << 1
	qcow2HeaderLen = 104
)

// checkDisk refuses a disk that would have QEMU open other files: a stranger made it.
func checkDisk(name string, mb int) error {
	f, err := os.Open(name)
	if err != nil {
		return errArchive("it has no disk")
	}
	defer f.Close()
	head := make([]byte, qcow2HeaderLen)
	if _, err := io.ReadFull(f, head); err != nil {
		return errArchive("its disk is none")
	}
	be := func(at, n int) (v uint64) {
		for _, b := range head[at : at+n] {
			v = v<<8 | uint64(b)
		}
		return v
	}
	features := be(72, 8)
	switch {
	case be(0, 4) != qcow2Magic || be(4, 4) != 3:
		return errArchive("its disk is no qcow2 of version 3")
	case be(24, 8) != uint64(mb)<<20: //nolint:gosec // at least 1
		return errArchive("its disk is not of the size that it says")
	case be(8, 8) != 0 || features&qcow2External != 0:
		return errArchive("its disk refers to another file")
	case features&qcow2Corrupt != 0 || be(32, 4) != 0:
		return errArchive("its disk is corrupt or encrypted")
	}
	return nil
}

// ExportName is what an exported image is called by default.
func (i *Image) ExportName() string {
	return fmt.Sprintf("%s-%s.capsem.tar.zst", i.Name, time.Unix(0, i.CreatedNS).UTC().Format("20060102"))
}
