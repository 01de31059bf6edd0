package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModule bounds one module, in bytes.
const maxModule = 32 << 20

// Modules returns the wanted modules (names without .ko) and what they need, in an order in which they can be loaded. tree is
// the directory of one kernel's modules, such as /usr/lib/modules/6.12-cloud-amd64. Modules that are built into the kernel
// are left out; any other that is missing is an error. What a module needs is read from the module itself.
func Modules(tree fs.FS, wanted []string) ([]Module, error) {
	builtin, err := fs.ReadFile(tree, "modules.builtin")
	if err != nil {
		return nil, fmt.Errorf("read list of built-in modules: %w", err)
	}
	r := resolver{tree: tree, builtin: names(string(builtin)), files: map[string]string{}, done: map[string]bool{}}
	err = fs.WalkDir(tree, "kernel", func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(e.Name(), ".ko") {
			r.files[canonical(p)] = p
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	for _, name := range wanted {
		if err := r.add(name, 0); err != nil {
			return nil, err
		}
	}
	return r.out, nil
}

// names are the canonical names in a list of paths, one a line.
func names(list string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(list) {
		out[canonical(strings.TrimSpace(line))] = true
	}
	return out
}

// canonical is a module's name as the kernel knows it: virtio-rng.ko.xz is virtio_rng.
func canonical(p string) string {
	name, _, _ := strings.Cut(path.Base(p), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

type resolver struct {
	tree    fs.FS
	builtin map[string]bool
	files   map[string]string // canonical name to path
	done    map[string]bool
	out     []Module
}

// add adds a module after what it needs.
func (r *resolver) add(name string, depth int) error {
	name = canonical(name)
	if r.done[name] || r.builtin[name] {
		return nil
	}
	r.done[name] = true
	p, ok := r.files[name]
	if !ok {
		return fmt.Errorf("kernel module %s is not there", name)
	}
	if depth > 20 || len(r.out) >= maxModules {
		return errors.New("too many kernel modules need one another")
	}
	data, err := r.read(p)
	if err != nil {
		return fmt.Errorf("read kernel module %s: %w", name, err)
	}
	for _, dep := range depends(data) {
		if err := r.add(dep, depth+1); err != nil {
			return err
		}
	}
	r.out = append(r.out, Module{Name: name + ".ko", Data: data})
	return nil
}

func (r *resolver) read(p string) ([]byte, error) {
	f, err := r.tree.Open(p)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller does
	}
	defer f.Close()
	var in io.Reader = f
	switch path.Ext(p) {
	case ".xz":
		in, err = xz.NewReader(f)
	case ".zst":
		in, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller does
	}
	data, err := io.ReadAll(io.LimitReader(in, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = errors.New("it is too long")
	}
	return data, err //nolint:wrapcheck // the caller does
}

// depends lists what a module needs: the field "depends=" of its .modinfo section, found by its text.
func depends(module []byte) []string {
	_, rest, _ := bytes.Cut(module, []byte("\x00depends="))
	value, _, ended := bytes.Cut(rest, []byte{0})
	if !ended || len(value) > 4096 {
		return nil
	}
	return slices.DeleteFunc(strings.Split(string(value), ","), func(s string) bool { return s == "" })
}
