package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/zeebo/blake3"

	"capsem/core/api"
)

// Bounds of a manifest.
const (
	maxEntries = 500_000
	// maxWeight bounds the bytes of all names, targets and attributes of one workspace together.
	maxWeight   = 256 << 20
	maxManifest = 512 << 20
	maxHeader   = 4 << 10
	// maxPath bounds a path: a thousand directories, each in the other, with names of average length.
	maxPath   = 32 << 10
	maxName   = 255
	maxDepth  = 2048
	maxTarget = 4096
	maxXattrs = 64 << 10
	maxSlot   = 1000
)

// magic begins a manifest file; the checksum of all that follows comes next, then the header's length, the header in CBOR, and the entries.
const magic = "capsem-snapshot\n"

// header is what is known of a snapshot without its entries.
type header struct {
	Version int    `cbor:"1,keyasint"`
	Seq     uint64 `cbor:"2,keyasint"`
	Slot    int    `cbor:"3,keyasint"`
	Origin  string `cbor:"4,keyasint"`
	Name    string `cbor:"5,keyasint"`
	Created int64  `cbor:"6,keyasint"` // nanoseconds since 1970
	Hash    hash   `cbor:"7,keyasint"`
	Files   int    `cbor:"8,keyasint"`
	Entries int    `cbor:"9,keyasint"`
	Skipped int    `cbor:"10,keyasint"`
}

// manifestVersion is the only one there is so far.
const manifestVersion = 1

func (h *header) id() string             { return idOf(h.Slot) }
func (h *header) created() time.Time     { return time.Unix(0, h.Created) }
func (h *header) age(n time.Time) string { return age(n.Sub(h.created())) }

func idOf(slot int) string { return fmt.Sprintf("cp-%d", slot) }

// manifest is a whole snapshot. Its entries are in tree order.
type manifest struct {
	header
	entries []entry
}

// find returns the entry of a path, or nil.
func (m *manifest) find(path string) *entry {
	if i := m.index(path); i >= 0 {
		return &m.entries[i]
	}
	return nil
}

// index returns where the entry of a path is, or -1.
func (m *manifest) index(path string) int {
	if m == nil {
		return -1
	}
	i, ok := slices.BinarySearchFunc(m.entries, path, func(e entry, p string) int { return treeOrder(e.path, p) })
	if !ok {
		return -1
	}
	return i
}

// under returns the entries of a path and all that is below it.
func (m *manifest) under(path string) []entry {
	if path == "" {
		return m.entries
	}
	from := sort.Search(len(m.entries), func(i int) bool { return treeOrder(m.entries[i].path, path) >= 0 })
	n := sort.Search(len(m.entries)-from, func(i int) bool { return !below(m.entries[from+i].path, path) })
	return m.entries[from : from+n]
}

// finish sorts and counts what was collected.
func (m *manifest) finish() {
	slices.SortFunc(m.entries, func(a, b entry) int { return treeOrder(a.path, b.path) })
	m.Version, m.Entries, m.Files = manifestVersion, len(m.entries), 0
	for i := range m.entries {
		if m.entries[i].kind != kindDir {
			m.Files++
		}
	}
	m.Hash = digest(m.entries)
}

var (
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 4, MaxArrayElements: 64, MaxMapPairs: 64,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, UTF8: cbor.UTF8RejectInvalid,
	}.DecMode())
	encMode = must(cbor.CoreDetEncOptions().EncMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are constants
	}
	return v
}

// encode makes the file of a manifest.
func (m *manifest) encode() ([]byte, error) {
	head, err := encMode.Marshal(m.header)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	out := make([]byte, 0, 128+len(head)+len(m.entries)*140)
	out = append(append(out, magic...), make([]byte, len(hash{}))...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(head))) //nolint:gosec // a few dozen bytes
	out = append(out, head...)
	for i := range m.entries {
		out = m.entries[i].append(out)
	}
	if len(out) > maxManifest {
		return nil, errors.New("encode snapshot: the names of its files take too much space")
	}
	check := checksum(out[len(magic)+len(hash{}):])
	copy(out[len(magic):], check[:])
	return out, nil
}

func checksum(data []byte) hash { return blake3.Sum256(data) }

func (e *entry) append(out []byte) []byte {
	out = append(out, byte(e.kind), e.marks)
	out = appendText(out, e.path)
	for _, n := range []uint64{uint64(e.mode), uint64(e.uid), uint64(e.gid), e.ino, uint64(e.size)} { //nolint:gosec // a size is not negative
		out = binary.AppendUvarint(out, n)
	}
	out = binary.AppendVarint(binary.AppendVarint(out, e.mtime), e.ctime)
	switch e.kind {
	case kindFile:
		out = append(out, e.hash[:]...)
	case kindSymlink:
		out = appendText(out, e.target)
	case kindDir:
	}
	out = binary.AppendUvarint(out, uint64(len(e.xattrs)))
	for _, x := range e.xattrs {
		out = appendText(appendText(out, x.name), x.value)
	}
	return out
}

func appendText(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// errDamaged is what cannot be trusted.
var errDamaged = errors.New("it is damaged")

// decodeHeader checks a whole manifest file and returns its header and the part with the entries.
func decodeHeader(data []byte) (header, []byte, error) {
	var h header
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(rest) < len(hash{})+4 {
		return h, nil, errDamaged
	}
	check, rest := hash(rest[:len(hash{})]), rest[len(hash{}):]
	if check != checksum(rest) {
		return h, nil, errDamaged
	}
	n := int(binary.BigEndian.Uint32(rest))
	if n > maxHeader || n > len(rest)-4 {
		return h, nil, errDamaged
	}
	if err := decMode.Unmarshal(rest[4:4+n], &h); err != nil {
		return h, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if h.Version > manifestVersion {
		return h, nil, fmt.Errorf("%w: it has version %d, which a newer capsem wrote", errDamaged, h.Version)
	}
	known := h.Origin == api.OriginAuto || h.Origin == api.OriginManual || h.Origin == api.OriginRevert
	if h.Version < 1 || !known || h.Slot < 0 || h.Slot > maxSlot || h.Entries < 0 || h.Entries > maxEntries || len(h.Name) > 64 || h.Files < 0 {
		return h, nil, errDamaged
	}
	return h, rest[4+n:], nil
}

// decode reads a whole manifest. What it accepts can be used without further checks: sorted, no path leads out, each has its directory.
func decode(data []byte) (*manifest, error) {
	h, rest, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	m := &manifest{header: h}
	if h.Entries > len(rest)/10 { // no entry is shorter
		return nil, errDamaged
	}
	m.entries = make([]entry, h.Entries)
	r := &reader{text: string(rest)}
	var dirs []string // those that the last entry is in
	for i := range m.entries {
		e := &m.entries[i]
		r.entry(e)
		if r.bad || !validPath(e.path) || i > 0 && treeOrder(m.entries[i-1].path, e.path) >= 0 {
			return nil, errDamaged
		}
		for len(dirs) > 0 && !below(e.path, dirs[len(dirs)-1]) {
			dirs = dirs[:len(dirs)-1]
		}
		if up := parent(e.path); up != "" && (len(dirs) == 0 || dirs[len(dirs)-1] != up) {
			return nil, errDamaged
		}
		if e.kind == kindDir {
			dirs = append(dirs, e.path)
		}
	}
	if r.text != "" {
		return nil, errDamaged
	}
	return m, nil
}

// validPath reports whether a path stays below the workspace.
func validPath(path string) bool {
	if path == "" || len(path) > maxPath || strings.IndexByte(path, 0) >= 0 || strings.Count(path, "/") >= maxDepth {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > maxName {
			return false
		}
	}
	return true
}
