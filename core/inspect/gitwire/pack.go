package gitwire

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxObjects and maxInflated bound what of a pack is looked through, maxCommit one commit, maxKept the commits kept for others that are
	// written as a difference to them.
	maxObjects  = 5_000_000
	maxInflated = 16 << 30
	maxCommit   = 1 << 20
	maxKept     = 32 << 20
	// maxHistory bounds the commits remembered.
	maxHistory = 200_000
)

// ErrPack is a pack that cannot be read.
var ErrPack = errors.New("the pack cannot be read")

// The types of objects that matter here.
const (
	typeCommit   = 1
	typeOfsDelta = 6
	typeRefDelta = 7
)

// History is how the commits of a pack hang together, as far as it could be seen: what it knows of is sure.
type History struct {
	parents map[string][]string
}

// Leads reports whether the commits of the pack lead from one back to another.
func (h *History) Leads(from, to string) bool {
	seen := map[string]bool{}
	for next := []string{from}; len(next) > 0; {
		id := next[len(next)-1]
		next = next[:len(next)-1]
		if id == to {
			return true
		}
		if !seen[id] {
			seen[id] = true
			next = append(next, h.parents[id]...)
		}
	}
	return false
}

// packReader reads a pack object by object.
type packReader struct {
	src *bufio.Reader
	// pos is how many bytes of the pack have been read.
	pos      int64
	idBytes  int
	inflate  io.ReadCloser
	inflated int64
	history  *History
	// commits are those kept, by where they begin; at is where each id begins.
	commits map[int64][]byte
	at      map[string]int64
	kept    int
	// objects takes all commits and trees, where they are wanted; places has those of this pack, and differences to come, by where they begin.
	objects *Objects
	places  map[int64]any
}

// Read and ReadByte count. A decompressor reads no more than it needs of an io.ByteReader.
func (r *packReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.pos += int64(n)
	return n, err //nolint:wrapcheck // an io.Reader's
}

// ReadByte reads one byte.
func (r *packReader) ReadByte() (byte, error) {
	b, err := r.src.ReadByte()
	if err == nil {
		r.pos++
	}
	return b, err //nolint:wrapcheck // an io.ByteReader's
}

// ReadHistory reads a pack to its end, in bounded memory, and gives how its commits hang together. idBytes is the length of an id. Something
// behind the pack is an error.
func ReadHistory(src io.Reader, idBytes int) (*History, error) {
	r := &packReader{
		src: bufio.NewReaderSize(src, 64<<10), idBytes: idBytes, history: &History{parents: map[string][]string{}},
		commits: map[int64][]byte{}, at: map[string]int64{},
	}
	if err := r.all(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, unexpected(err))
	}
	return r.history, nil
}

func (r *packReader) all() error {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err //nolint:wrapcheck // wrapped above
	}
	version, count := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	switch {
	case string(head[:4]) != "PACK" || version != 2 && version != 3:
		return errors.New("it does not begin as one")
	case count > maxObjects:
		return fmt.Errorf("%w: %d objects", ErrTooMuch, count)
	}
	next := r.object
	if r.objects != nil {
		next = r.whole
	}
	for range count {
		if err := next(); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(r, make([]byte, r.idBytes)); err != nil {
		return err //nolint:wrapcheck // wrapped above
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("something follows it")
		}
		return err
	}
	return nil
}

// object reads one object.
func (r *packReader) object() error {
	begin := r.pos
	kind, size, err := r.head()
	if err != nil {
		return err
	}
	var base []byte
	known := false
	switch kind {
	case typeOfsDelta:
		back, err := r.offset()
		if err != nil {
			return err
		}
		base, known = r.commits[begin-back]
	case typeRefDelta:
		id := make([]byte, r.idBytes)
		if _, err := io.ReadFull(r, id); err != nil {
			return err //nolint:wrapcheck // wrapped above
		}
		if at, ok := r.at[hex.EncodeToString(id)]; ok {
			base, known = r.commits[at]
		}
	case 1, 2, 3, 4:
	default:
		return fmt.Errorf("an object of type %d", kind)
	}
	keep := (kind == typeCommit || known) && size <= maxCommit
	data, err := r.data(size, keep)
	switch {
	case err != nil:
		return err
	case !keep:
		return nil
	case known:
		if data, err = patch(base, data); err != nil {
			return err
		}
	}
	r.commit(begin, data)
	return nil
}

// head reads type and size of an object.
func (r *packReader) head() (kind byte, size int64, err error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	kind, size = b>>4&7, int64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if shift > 53 {
			return 0, 0, errors.New("the size of an object has no end")
		}
		if b, err = r.ReadByte(); err != nil {
			return 0, 0, err
		}
		size |= int64(b&0x7f) << shift
	}
	return kind, size, nil
}

// offset reads how far in front the base of a difference is.
func (r *packReader) offset() (int64, error) {
	b, err := r.ReadByte()
	n := int64(b & 0x7f)
	for i := 0; err == nil && b&0x80 != 0; i++ {
		if i == 8 {
			return 0, errors.New("an offset has no end")
		}
		b, err = r.ReadByte()
		n = (n+1)<<7 | int64(b&0x7f)
	}
	return n, err
}

// data reads the compressed data of an object, which has to be of the size it says.
func (r *packReader) data(size int64, keep bool) ([]byte, error) {
	if r.inflated += size; r.inflated > maxInflated {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrTooMuch, int64(maxInflated))
	}
	if r.inflate == nil {
		z, err := zlib.NewReader(r)
		if err != nil {
			return nil, err //nolint:wrapcheck // wrapped above
		}
		r.inflate = z
	} else if z, ok := r.inflate.(zlib.Resetter); ok {
		if err := z.Reset(r, nil); err != nil {
			return nil, err //nolint:wrapcheck // wrapped above
		}
	}
	var out bytes.Buffer
	to := io.Discard
	if keep {
		to = &out
	}
	n, err := io.Copy(to, io.LimitReader(r.inflate, size+1))
	if err == nil && n != size {
		err = errors.New("an object is not of the size it says")
	}
	return out.Bytes(), err //nolint:wrapcheck // wrapped above
}

// commit notes a commit.
func (r *packReader) commit(begin int64, data []byte) {
	if len(r.history.parents) >= maxHistory {
		return
	}
	id := hashed(typeCommit, data, r.idBytes)
	r.history.parents[id] = parentsOf(data)
	if r.kept+len(data) <= maxKept {
		r.kept += len(data)
		r.commits[begin], r.at[id] = data, begin
	}
}

// parentsOf reads the parents that a commit names, as git does: behind its tree, without anything between.
func parentsOf(data []byte) (out []string) {
	first := true
	for line := range strings.Lines(string(data)) {
		if first {
			if !strings.HasPrefix(line, "tree ") {
				return nil
			}
			first = false
			continue
		}
		id, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "parent ")
		if !ok || !validID(id) {
			return out
		}
		out = append(out, id)
	}
	return out
}
