package build

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	embedded "capsem/assets"
)

// epoch is the time that every file of an image has at most: the release of Debian 13. It is SOURCE_DATE_EPOCH for all tools.
const epoch = 1754697600

// Dropped from the image: what a build leaves, what belongs to one machine only, and documentation nobody reads in a VM.
var (
	droppedTrees = []string{
		"dev/", "tmp/", "run/", "proc/", "sys/", "var/tmp/", "var/cache/", "var/log/", "var/lib/apt/lists/", "root/.npm/", "root/.cache/",
		"etc/apt/sources.list.d/", "usr/share/doc/", "usr/share/info/", "usr/share/lintian/", "usr/share/man/", "usr/share/locale/",
	}
	droppedFiles = []string{
		"etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap", "etc/apt/preferences.d/capsem", "var/lib/dpkg/lock",
		"var/lib/dpkg/lock-frontend", "var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/.pwd.lock", "etc/subuid-", "etc/subgid-", "var/lib/systemd/random-seed",
	}
	emptied = []string{"etc/machine-id", "var/lib/dbus/machine-id"}
	// keptDocs stay of the documentation: licences have to.
	keptDocs = "usr/share/doc/*/copyright"
)

// filter makes the image's file system of the one that mmdebstrap has made.
type filter struct {
	out *tar.Writer
	// hashes are the SHA-256 of packages by Pinned.id, from apt's lists; status is dpkg's list of what is installed.
	hashes map[string]string
	status []Pinned
	// ours are files by name that replace others; links symbolic links.
	ours    map[string]ourFile
	seen    map[string]bool
	entries int
	// progress is told how many entries have passed.
	progress func(n int)
}

type ourFile struct {
	mode    int64
	content []byte
}

func newFilter(w io.Writer, r *Recipe) (*filter, error) {
	f := &filter{out: tar.NewWriter(w), hashes: map[string]string{}, ours: map[string]ourFile{}, seen: map[string]bool{}, progress: func(int) {}}
	for _, file := range r.Files {
		content, err := embedded.RecipeFile(file.Source)
		if err != nil {
			return nil, err //nolint:wrapcheck // says what it did
		}
		mode, err := file.mode()
		if err != nil {
			return nil, err
		}
		f.ours[strings.TrimPrefix(file.Path, "/")] = ourFile{mode, content}
	}
	f.ours["etc/environment"] = ourFile{0o644, environment(r.Environment)}
	// The address of this machine's mirror is of no use in a guest, and none of its business.
	f.ours["etc/apt/sources.list"] = ourFile{0o644, []byte("# Packages come with the image. Add a source here if your policy lets the guest reach one.\n")}
	return f, nil
}

func environment(vars map[string]string) []byte {
	var lines []string
	for k, v := range vars {
		lines = append(lines, k+"="+v+"\n")
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

// run copies the archive, changed.
func (f *filter) run(r io.Reader) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read file system: %w", err)
		}
		if err := f.entry(h, in); err != nil {
			return err
		}
	}
	return f.finish()
}

func (f *filter) entry(h *tar.Header, content io.Reader) error {
	f.entries++
	if f.entries%1000 == 0 {
		f.progress(f.entries)
	}
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		name = "."
	}
	switch {
	case name == "var/lib/dpkg/status":
		var err error
		if content, err = f.installed(content); err != nil {
			return err
		}
	case strings.HasPrefix(name, "var/lib/apt/lists/") && strings.HasSuffix(name, "_Packages"):
		return f.lists(content)
	}
	if drop(name, h) {
		return nil
	}
	if _, replaced := f.ours[name]; replaced {
		return nil
	}
	return f.write(name, h, content)
}

// drop reports whether an entry does not belong into an image. The directories themselves stay.
func drop(name string, h *tar.Header) bool {
	switch h.Typeflag {
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return true
	}
	if slices.Contains(droppedFiles, name) || strings.HasPrefix(name, "etc/ssh/ssh_host_") {
		return true
	}
	if ok, err := path.Match(keptDocs, name); err == nil && ok {
		return false
	}
	for _, tree := range droppedTrees {
		if strings.HasPrefix(name, tree) {
			// What documentation is about keeps its directory for the licence.
			return h.Typeflag != tar.TypeDir || !strings.HasPrefix(name, "usr/share/doc/") || strings.Count(name, "/") > 3
		}
	}
	return false
}

// write passes an entry on, without set-id bits, capabilities, names of users, and times after the epoch.
func (f *filter) write(name string, h *tar.Header, content io.Reader) error {
	f.seen[name] = true
	out := &tar.Header{
		Name: name, Typeflag: h.Typeflag, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode &^ 0o6000, Uid: h.Uid, Gid: h.Gid,
		ModTime: h.ModTime, Format: tar.FormatPAX,
	}
	if h.Typeflag == tar.TypeDir {
		out.Name += "/"
	}
	if h.Typeflag == tar.TypeLink {
		out.Linkname = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
	}
	if limit := time.Unix(epoch, 0); out.ModTime.After(limit) {
		out.ModTime = limit
	}
	out.ModTime = out.ModTime.Truncate(time.Second)
	if slices.Contains(emptied, name) {
		out.Size, content = 0, strings.NewReader("")
	}
	if err := f.out.WriteHeader(out); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(f.out, content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// finish adds our own files at the end.
func (f *filter) finish() error {
	names := make([]string, 0, len(f.ours))
	for name := range f.ours {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := f.parents(name); err != nil {
			return err
		}
		o := f.ours[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: o.mode, Size: int64(len(o.content)), ModTime: time.Unix(epoch, 0)}
		if err := f.write(name, h, strings.NewReader(string(o.content))); err != nil {
			return err
		}
	}
	if err := f.out.Close(); err != nil {
		return fmt.Errorf("write file system: %w", err)
	}
	return nil
}

// parents makes directories above one of our files that nothing else brought.
func (f *filter) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." || f.seen[dir] {
		return nil
	}
	if err := f.parents(dir); err != nil {
		return err
	}
	return f.write(dir, &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(epoch, 0)}, strings.NewReader(""))
}

// installed reads dpkg's list, and returns its content for the image.
func (f *filter) installed(r io.Reader) (io.Reader, error) {
	text, err := io.ReadAll(io.LimitReader(r, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("read list of packages: %w", err)
	}
	for stanza := range strings.SplitSeq(string(text), "\n\n") {
		fields := stanzaFields(stanza)
		if fields["package"] != "" && strings.HasSuffix(fields["status"], " installed") {
			f.status = append(f.status, Pinned{Name: fields["package"], Version: fields["version"], Arch: fields["architecture"]})
		}
	}
	return strings.NewReader(string(text)), nil
}

// lists reads one of apt's lists of packages.
func (f *filter) lists(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	var p Pinned
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "":
			f.hashes[p.id()] = p.SHA256
			p = Pinned{}
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Arch = value
		case "SHA256":
			p.SHA256 = value
		}
	}
	f.hashes[p.id()] = p.SHA256
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read list of packages: %w", err)
	}
	return nil
}

// packages is what was installed, with hashes, sorted.
func (f *filter) packages() []Pinned {
	out := slices.Clone(f.status)
	for i := range out {
		out[i].SHA256 = f.hashes[out[i].id()]
	}
	slices.SortFunc(out, func(a, b Pinned) int { return strings.Compare(a.id(), b.id()) })
	return out
}
