package gitwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// maxCommands and maxHead bound the commands of a push, maxRef the name of a ref.
	maxCommands = 4096
	maxHead     = 2 << 20
	maxRef      = 1024
)

// ErrPush is a push whose commands cannot be understood.
var ErrPush = errors.New("the commands of the push cannot be read")

// Command is one change of a ref. Old and New are the ids of commits in hexadecimal, all zero for one that is not there.
type Command struct{ Old, New, Ref string }

// Creates reports whether the ref is new.
func (c *Command) Creates() bool { return strings.Trim(c.Old, "0") == "" }

// Deletes reports whether it removes the ref.
func (c *Command) Deletes() bool { return strings.Trim(c.New, "0") == "" }

// Push is the beginning of the body of a git-receive-pack request: all that comes before the pack.
type Push struct {
	Commands []Command
	// Capabilities are what the client asks for, Options its push options, Shallow the commits it has no parents of.
	Capabilities, Options, Shallow []string
	// Signed says that it came with a certificate.
	Signed bool
	// Raw is what was read: the pack, if there is one, follows.
	Raw []byte
}

// Has reports whether the client asks for a capability.
func (p *Push) Has(name string) bool {
	return slices.ContainsFunc(p.Capabilities, func(c string) bool { return c == name || strings.HasPrefix(c, name+"=") })
}

// HasPack reports whether a pack is to follow: only deletions need none.
func (p *Push) HasPack() bool {
	return slices.ContainsFunc(p.Commands, func(c Command) bool { return !c.Deletes() })
}

// IDBytes is the length of an object's id in the repository.
func (p *Push) IDBytes() int {
	for _, c := range p.Commands {
		return len(c.Old) / 2
	}
	return 20
}

// ReadPush reads the commands of a push, and its options. It reads nothing of the pack. Also when it fails the Push says what was understood.
func ReadPush(src io.Reader) (*Push, error) {
	r := NewReader(src, maxHead)
	p := &Push{}
	err := p.read(r)
	p.Raw = r.Raw()
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrPush, err)
	}
	return p, nil
}

func (p *Push) read(r *Reader) error {
	for {
		kind, data, err := r.Next()
		if err != nil {
			return unexpected(err)
		}
		if kind == Flush {
			break
		}
		if kind != Data {
			return ErrPacket
		}
		text, caps, hasCaps := strings.Cut(string(data), "\x00")
		if hasCaps {
			p.Capabilities = append(p.Capabilities, strings.Fields(caps)...)
		}
		if !hasCaps {
			text = strings.TrimSuffix(text, "\n")
		}
		switch id, shallow := strings.CutPrefix(text, "shallow "); {
		case shallow && validID(id):
			p.Shallow = append(p.Shallow, id)
		case text == "push-cert":
			err = p.certificate(r)
		default:
			err = p.command(text)
		}
		if err != nil {
			return err
		}
	}
	if !p.Has("push-options") {
		return nil
	}
	for {
		kind, data, err := r.Next()
		if err != nil {
			return unexpected(err)
		}
		if kind != Data {
			return nil
		}
		p.Options = append(p.Options, strings.TrimSuffix(string(data), "\n"))
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// command takes in "old new ref".
func (p *Push) command(text string) error {
	f := strings.SplitN(text, " ", 3)
	if len(f) != 3 || !validID(f[0]) || !validID(f[1]) || len(f[0]) != len(f[1]) || strings.Trim(f[0]+f[1], "0") == "" {
		return fmt.Errorf("%.200q is no command", text)
	}
	if !ValidRef(f[2]) {
		return fmt.Errorf("%.200q is no name of a ref", f[2])
	}
	if len(p.Commands) == maxCommands {
		return ErrTooMuch
	}
	if len(p.Commands) > 0 && len(p.Commands[0].Old) != len(f[0]) {
		return errors.New("ids of two lengths")
	}
	if slices.ContainsFunc(p.Commands, func(c Command) bool { return c.Ref == f[2] }) {
		return fmt.Errorf("%.200q is there twice", f[2])
	}
	p.Commands = append(p.Commands, Command{f[0], f[1], f[2]})
	return nil
}

// certificate reads a signed list of commands. Servers look at what stands between its head and its signature.
func (p *Push) certificate(r *Reader) error {
	p.Signed = true
	var all []byte
	for {
		kind, data, err := r.Next()
		if err != nil {
			return unexpected(err)
		}
		if kind != Data || bytes.IndexByte(data, 0) >= 0 {
			return errors.New("the certificate of the push has no end")
		}
		if string(data) == "push-cert-end\n" || string(data) == "push-cert-end" {
			break
		}
		all = append(all, data...)
	}
	_, body, ok := strings.Cut(string(all), "\n\n")
	if !ok {
		return errors.New("the certificate of the push has no commands")
	}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "-----BEGIN") {
			return nil
		}
		if err := p.command(line); err != nil {
			return err
		}
	}
	return nil
}

func validID(id string) bool {
	if len(id) != 40 && len(id) != 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; unhex(c) < 0 || c >= 'A' && c <= 'F' {
			return false
		}
	}
	return true
}

// ValidRef reports whether a name is one that git accepts for a ref, below refs/.
func ValidRef(ref string) bool {
	if len(ref) > maxRef || !strings.HasPrefix(ref, "refs/") || strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.HasSuffix(ref, ".") {
		return false
	}
	for i := range len(ref) {
		if c := ref[i]; c <= ' ' || c == 0x7f || strings.IndexByte("~^:?*[\\", c) >= 0 {
			return false
		}
	}
	for part := range strings.SplitSeq(ref, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}
