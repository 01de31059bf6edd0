package share

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/tree"
)

const (
	// maxCounted ends the count of a directory with more files than anybody keeps, maxLinked bounds those with several names that are
	// told from each other: of more, each name counts.
	maxCounted = 20 << 20
	maxLinked  = 1 << 20
	// batch is how many names are taken from a directory at once.
	batch = 1024
)

// counter counts a directory.
type counter struct {
	// lend has directories that their owner may not look into have the permissions for that meanwhile; else they are hidden. It is for
	// when no guest can open them at the same time.
	lend bool
	// hidden says that there is more than could be counted.
	hidden bool
	sum    int64
	files  int
	linked map[identity]bool
}

// usage counts an open directory. What a guest has done to it never is an error.
func usage(top int, lend bool) (*counter, error) {
	c := &counter{lend: lend, linked: map[identity]bool{}}
	st, err := statFD(top)
	if err != nil {
		return nil, fmt.Errorf("count: %w", err)
	}
	c.sum = st.cost()
	c.below(top)
	return c, nil
}

// place is a directory that is to be counted, by its name in another; nil is the one at the top.
type place struct {
	in   *place
	name string
}

// path is "" for one that is deeper than the guest itself gets.
func (p *place) path() string {
	names, size := []string{"."}, 0
	for ; p != nil; p = p.in {
		if names, size = append(names, p.name), size+len(p.name)+1; size > maxPath || len(names) > maxDepth {
			return ""
		}
	}
	slices.Reverse(names[1:])
	return strings.Join(names, "/")
}

// below counts what is in an open directory. Each directory in it is opened anew, beneath it: the guest may be changing them, and its
// paths may be longer than the kernel takes.
func (c *counter) below(top int) {
	for todo := []*place{nil}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		path := at.path()
		if path == "" {
			c.hidden = true
			continue
		}
		f, err := openBeneath(top, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			c.hidden = c.hidden || !moved(err) || errors.Is(err, unix.EACCES)
			continue
		}
		d := os.NewFile(uintptr(f.fd), path)
		for names, err := d.Readdirnames(batch); len(names) > 0; names, err = d.Readdirnames(batch) {
			for _, name := range names {
				if c.one(f, name) {
					todo = append(todo, &place{at, name})
				}
			}
			if err != nil || c.files > maxCounted {
				break
			}
		}
		_ = d.Close()
		if c.files > maxCounted {
			c.hidden = true
			return
		}
	}
}

// one counts a name in an open directory, and reports whether it is a directory to look into.
func (c *counter) one(dir file, name string) bool {
	c.files++
	st, err := statAt(dir.fd, name)
	if err != nil || st.mounted() {
		c.hidden = c.hidden || err != nil && !errors.Is(err, unix.ENOENT)
		return false
	}
	if st.Nlink > 1 && !st.isDir() {
		if c.linked[st.identity()] {
			return false
		}
		if len(c.linked) < maxLinked {
			c.linked[st.identity()] = true
		}
	}
	c.sum += st.cost()
	if !st.isDir() {
		return false
	}
	if euid := os.Geteuid(); st.Mode&0o500 != 0o500 && euid != 0 && int(st.Uid) == euid {
		c.closed(dir, name)
		return false
	}
	return true
}

// closed counts what is in a directory that its owner may not look into.
func (c *counter) closed(dir file, name string) {
	if !c.lend {
		c.hidden = true
		return
	}
	lent, err := tree.Open(dir.proc() + "/" + name)
	if err != nil {
		c.hidden = true
		return
	}
	defer lent.Close()
	f, err := openHow(dir.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		c.hidden = true
		return
	}
	defer f.close()
	c.below(f.fd)
}
