package gitwire

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxRefs bounds what a server says of its branches, in bytes.
const maxRefs = 16 << 20

// ListRefs is a request to git-upload-pack of protocol 2 for the branches of a repository whose ids have so many bytes.
func ListRefs(idBytes int) []byte {
	b := AppendPacket(nil, "command=ls-refs\n")
	if idBytes == 32 {
		b = AppendPacket(b, "object-format=sha256\n")
	}
	b = append(b, "0001"...)
	for _, prefix := range []string{"HEAD", "refs/heads/"} {
		b = AppendPacket(b, "ref-prefix "+prefix+"\n")
	}
	return AppendFlush(b)
}

// ReadRefs reads what a server answers to ListRefs: where its HEAD is, if it has one, and where its branches are.
func ReadRefs(src io.Reader) (head string, tips []string, err error) {
	a := &answer{src: io.LimitReader(src, maxRefs)}
	for {
		kind, data, err := a.packet()
		switch {
		case err != nil:
			return "", nil, fmt.Errorf("%w: %w", ErrAnswer, unexpected(err))
		case kind == Flush:
			return head, tips, nil
		case kind != Data:
			return "", nil, ErrPacket
		}
		f := strings.Fields(string(data))
		if len(f) > 1 && f[0] == "ERR" {
			return "", nil, fmt.Errorf("%w: %.200q", ErrAnswer, data)
		}
		if len(f) < 2 || !validID(f[0]) {
			continue // a branch without a commit
		}
		switch {
		case f[1] == "HEAD":
			head = f[0]
		case strings.HasPrefix(f[1], "refs/heads/"): // tags are often made under other rules, and what else there is, like proposals, by anybody
			tips = append(tips, f[0])
		}
	}
}

// maxPast is how far back from its tips a server is asked for commits.
const maxPast = 2000

// WantsPast is a request for the commits that led to some, where the server knows how without anything of their trees, as Wants is for those themselves.
func WantsPast(ids []string, noTrees bool) []byte {
	if noTrees {
		return wants(ids, maxPast, "tree:0")
	}
	return wants(ids, maxPast, "")
}

// Reach gives all known commits that some lead back to, those included.
func (o *Objects) Reach(from []string) map[string]bool {
	seen := map[string]bool{}
	for next := slices.Clone(from); len(next) > 0; {
		id := next[len(next)-1]
		next = next[:len(next)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		next = append(next, o.commits[id].Parents...)
	}
	return seen
}
