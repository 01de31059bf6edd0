package gitwire

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // git's names of objects
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	typeTree = 2
	// maxObjectBytes bounds the commits and trees of one Objects, maxPending the differences whose base is not known yet.
	maxObjectBytes = 96 << 20
	maxPending     = 32 << 20
	// maxRounds bounds how often differences are looked through for those whose base has come.
	maxRounds = 64
)

// Commit is what a commit says of its place.
type Commit struct {
	Tree    string
	Parents []string
}

// Objects are commits and trees, by their ids, which are computed and not believed. It is filled from packs, in bounded memory.
type Objects struct {
	idBytes int
	commits map[string]Commit
	// raw are the objects, for what is written as a difference to them.
	raw  map[string]object
	size int
	// parsed is how much of trees was read in all.
	parsed  int
	pending []*pending
	waiting int
}

type object struct {
	kind byte
	data []byte
}

// pending is a difference whose base is not known: by its id, or as another one.
type pending struct {
	base  string
	after *pending
	delta []byte
	is    *object
}

// NewObjects makes an empty one for a repository whose ids have so many bytes.
func NewObjects(idBytes int) *Objects {
	return &Objects{idBytes: idBytes, commits: map[string]Commit{}, raw: map[string]object{}}
}

// Commit gives a commit.
func (o *Objects) Commit(id string) (Commit, bool) {
	c, ok := o.commits[id]
	return c, ok
}

// Commits are the ids of all commits.
func (o *Objects) Commits() []string {
	var out []string
	for id := range o.commits {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// hashed is the id of an object.
func hashed(kind byte, data []byte, idBytes int) string {
	h := sha1.New() //nolint:gosec // git's names of objects
	if idBytes == sha256.Size {
		h = sha256.New()
	}
	fmt.Fprintf(h, "%s %d\x00", map[byte]string{typeCommit: "commit", typeTree: "tree"}[kind], len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// add takes an object in.
func (o *Objects) add(kind byte, data []byte) error {
	if o.size += len(data) + 256; o.size > maxObjectBytes {
		return fmt.Errorf("%w: commits and trees of more than %d bytes", ErrTooMuch, maxObjectBytes)
	}
	id := hashed(kind, data, o.idBytes)
	o.raw[id] = object{kind, data}
	if kind == typeCommit {
		o.commits[id] = Commit{treeOf(data), parentsOf(data)}
	}
	return nil
}

func treeOf(data []byte) string {
	line, _, _ := strings.Cut(string(data[:min(len(data), 80)]), "\n")
	id, ok := strings.CutPrefix(line, "tree ")
	if !ok || !validID(id) {
		return ""
	}
	return id
}

// ReadObjects reads a pack to its end, as ReadHistory does, and takes its commits and trees in. Of what is not in the pack and yet the base of something,
// Settle is to be told later.
func (o *Objects) ReadObjects(src io.Reader) (*History, error) {
	r := &packReader{src: bufio.NewReaderSize(src, 64<<10), idBytes: o.idBytes, history: &History{parents: map[string][]string{}}, objects: o, places: map[int64]any{}}
	if err := r.all(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, unexpected(err))
	}
	if err := o.Settle(); err != nil {
		return nil, err
	}
	for id, c := range o.commits {
		r.history.parents[id] = c.Parents
	}
	return r.history, nil
}

// whole reads one object with all that is needed of it.
func (r *packReader) whole() error {
	begin := r.pos
	kind, size, err := r.head()
	if err != nil {
		return err
	}
	var base any
	id := make([]byte, r.idBytes)
	switch kind {
	case typeOfsDelta:
		back, err := r.offset()
		if err != nil {
			return err
		}
		if base = r.places[begin-back]; base == nil { // of a blob or a tag
			_, err = r.data(size, false)
			return err
		}
	case typeRefDelta:
		if _, err := io.ReadFull(r, id); err != nil {
			return err //nolint:wrapcheck // wrapped above
		}
		base = hex.EncodeToString(id)
	case typeCommit, typeTree:
	case 3, 4:
		_, err = r.data(size, false)
		return err
	default:
		return fmt.Errorf("an object of type %d", kind)
	}
	if size > maxCommit {
		if base == nil {
			return fmt.Errorf("%w: a commit or a tree of %d bytes", ErrTooMuch, size)
		}
		_, err = r.data(size, false) // a file, most likely; if not, a tree will be missing
		return err
	}
	data, err := r.data(size, true)
	if err != nil {
		return err
	}
	return r.place(begin, kind, base, data)
}

// place takes an object in, or what it differs in from its base.
func (r *packReader) place(begin int64, kind byte, base any, data []byte) error {
	o := r.objects
	p := &pending{delta: data}
	switch base := base.(type) {
	case nil:
		r.places[begin] = object{kind, data}
		return o.add(kind, data)
	case object:
		full, err := patch(base.data, data)
		if err != nil {
			return err
		}
		r.places[begin] = object{base.kind, full}
		return o.add(base.kind, full)
	case *pending:
		p.after = base
	case string:
		if known, ok := o.raw[base]; ok {
			return r.place(begin, kind, known, data)
		}
		p.base = base
	}
	if o.waiting+len(data) > maxPending {
		return nil // if it was a tree, that will be missing
	}
	o.waiting += len(data) + 256
	o.pending = append(o.pending, p)
	r.places[begin] = p
	return nil
}

// Settle makes objects of those differences whose base has come since.
func (o *Objects) Settle() error {
	for range maxRounds {
		rest := o.pending[:0]
		for _, p := range o.pending {
			base, ok := o.raw[p.base]
			if p.after != nil && p.after.is != nil {
				base, ok = *p.after.is, true
			}
			if !ok {
				rest = append(rest, p)
				continue
			}
			full, err := patch(base.data, p.delta)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrPack, err)
			}
			p.is, p.delta = &object{base.kind, full}, nil
			if err := o.add(base.kind, full); err != nil {
				return err
			}
		}
		if len(rest) == len(o.pending) {
			return nil
		}
		o.pending = rest
	}
	return nil
}

// entry is one line of a tree.
type entry struct{ mode, id string }

// ErrMissing is a tree or commit that would have to be known.
var ErrMissing = errors.New("a tree is not known")

// tree reads a tree. The empty id is one without entries.
func (o *Objects) tree(id string) (map[string]entry, error) {
	out := map[string]entry{}
	if id == "" {
		return out, nil
	}
	t, ok := o.raw[id]
	if !ok || t.kind != typeTree {
		return nil, fmt.Errorf("%w: %.12s", ErrMissing, id)
	}
	const each = 256 // what one takes whatever is in it
	if o.parsed += len(t.data) + each; o.parsed > maxParsed {
		return nil, fmt.Errorf("%w: too many trees", ErrTooMuch)
	}
	for data := t.data; len(data) > 0; {
		mode, rest, ok := bytes.Cut(data, []byte{' '})
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok || !ok2 || len(rest) < o.idBytes || len(mode) > 8 {
			return nil, errors.New("a tree cannot be read")
		}
		text := string(name)
		if _, twice := out[text]; twice || text == "" || text == "." || text == ".." || strings.ContainsAny(text, "/") || strings.EqualFold(text, ".git") {
			return nil, fmt.Errorf("a tree has the name %.100q", text)
		}
		kind := strings.TrimLeft(string(mode), "0")
		if kind == "" || strings.Trim(kind, "01234567") != "" {
			return nil, fmt.Errorf("a tree has the mode %.20q", mode)
		}
		out[text] = entry{kind, hex.EncodeToString(rest[:o.idBytes])}
		data = rest[o.idBytes:]
	}
	return out, nil
}
