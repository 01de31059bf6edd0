// Package initrd makes the archive from which a guest boots: the agent as /init, and the kernel modules it loads in /modules
// with their order (core/guest/kmod). The same input gives the same bytes.
package initrd

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"
)

const (
	// MaxSize bounds an initrd, packed or not, in bytes.
	MaxSize = 256 << 20
	// maxModules bounds the number of modules.
	maxModules = 256
	// moduleDir is where they are.
	moduleDir = "modules"
)

// Module is one kernel module.
type Module struct {
	// Name is its file name, such as virtio_blk.ko; Data its content, not compressed.
	Name string
	Data []byte
}

// Input is what goes in. Modules are in the order in which they are to be loaded.
type Input struct {
	Agent   []byte
	Modules []Module
}

var moduleName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}\.ko$`)

// Build writes the archive, compressed with zstd. Measured under TCG, zstd, gzip, lz4 and no compression at all boot in the
// same time (3.7 s, within the noise).
func Build(w io.Writer, in Input) error {
	enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("build initrd: %w", err)
	}
	a := &archive{w: cpio.NewWriter(enc)}
	a.add("init", 0o755|cpio.TypeReg, in.Agent)
	a.add(moduleDir, 0o755|cpio.TypeDir, nil)
	var order strings.Builder
	for _, m := range in.Modules {
		if !moduleName.MatchString(m.Name) {
			return fmt.Errorf("build initrd: module name %.40q is malformed", m.Name)
		}
		order.WriteString(m.Name + "\n")
		a.add(path.Join(moduleDir, m.Name), 0o644|cpio.TypeReg, m.Data)
	}
	a.add(path.Join(moduleDir, "order"), 0o644|cpio.TypeReg, []byte(order.String()))
	if err := errors.Join(a.err, a.w.Close(), enc.Close()); err != nil {
		return fmt.Errorf("build initrd: %w", err)
	}
	return nil
}

// archive writes entries until one fails.
type archive struct {
	w   *cpio.Writer
	n   int64
	err error
}

// add writes one entry. Owner and times are zero; inode numbers count up, as the kernel takes equal ones for hard links.
func (a *archive) add(name string, mode cpio.FileMode, data []byte) {
	if a.err != nil {
		return
	}
	a.n++
	a.err = a.w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(data)), Inode: a.n, Links: 1})
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

// Read returns the modules of an archive that Build has made, in their order.
func Read(r io.Reader) ([]Module, error) {
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxSize))
	if err != nil {
		return nil, fmt.Errorf("read initrd: %w", err)
	}
	defer dec.Close()
	byName := map[string][]byte{}
	var order string
	entries := cpio.NewReader(io.LimitReader(dec, MaxSize))
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read initrd: %w", err)
		}
		dir, name := path.Split(h.Name)
		if dir != moduleDir+"/" {
			continue
		}
		if len(byName) > maxModules || h.Size < 0 || h.Size > MaxSize {
			return nil, errors.New("read initrd: too much in it")
		}
		data, err := io.ReadAll(io.LimitReader(entries, h.Size))
		if err != nil {
			return nil, fmt.Errorf("read initrd: %w", err)
		}
		if name == "order" {
			order = string(data)
		} else {
			byName[name] = data
		}
	}
	return inOrder(order, byName)
}

func inOrder(order string, byName map[string][]byte) ([]Module, error) {
	var out []Module
	for name := range strings.FieldsSeq(order) {
		data, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("read initrd: module %.40q is missing", name)
		}
		out = append(out, Module{name, data})
	}
	return out, nil
}
