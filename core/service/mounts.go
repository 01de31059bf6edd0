package service

import (
	"os"
	"path/filepath"
	"strings"

	"capsem/core/fault"
	"capsem/core/proto"
)

// checkMounts makes sure of the directories that a new VM is to share: they are there, and are not more than anybody would mean to
// share, unless forced. It returns them by paths without links: where those lead may not change later.
func (s *Service) checkMounts(mounts []proto.Mount, force bool) ([]proto.Mount, error) {
	if len(mounts) >= proto.MaxShares {
		return nil, fault.New(fault.OutOfRange, "%d directories to share are more than %d", len(mounts), proto.MaxShares-1)
	}
	seen := map[string]bool{}
	out := make([]proto.Mount, 0, len(mounts))
	for _, m := range mounts {
		if err := s.checkMount(&m, force); err != nil {
			return nil, err
		}
		if seen[m.Guest] {
			return nil, fault.New(fault.Invalid, "two directories are to be shared as %s", m.Guest)
		}
		seen[m.Guest] = true
		out = append(out, m)
	}
	return out, nil
}

func (s *Service) checkMount(m *proto.Mount, force bool) error {
	if err := proto.ValidateMount(*m); err != nil {
		return fault.New(fault.Invalid, "%s", err)
	}
	asked := m.Host
	m.Host = realPath(asked) // once: a guest may share a directory above, and change where links in it lead
	info, err := os.Lstat(m.Host)
	switch {
	case err != nil:
		return fault.Wrap(err, fault.NotFound, "cannot share %s: %s", asked, err)
	case !info.IsDir():
		return fault.New(fault.Invalid, "cannot share %s: it is not a directory", asked).WithHint("share the directory that it is in")
	}
	if why := s.tooMuch(m.Host); why != "" && !force {
		return fault.New(fault.Forbidden, "%s is %s: whatever runs in the VM could change all of it", asked, why).
			WithHint("share a directory in it, or insist with --force-mount")
	}
	return nil
}

// tooMuch says what a directory of the host is, whose path has no links, if it is one that is not shared without insisting.
func (s *Service) tooMuch(dir string) string {
	home := realPath(s.opts.Home.Dir())
	own, _ := os.UserHomeDir() // without one there is nothing to compare with
	switch {
	case dir == "/":
		return "the whole file system"
	case own != "" && within(realPath(own), dir):
		return "your home directory, or above it"
	case within(home, dir) || within(dir, home):
		return "capsem's own directory, in it or above it"
	}
	return ""
}

func realPath(p string) string {
	if resolved, err := filepath.EvalSymlinks(p); err == nil {
		return resolved
	}
	return filepath.Clean(p)
}

// within reports whether one clean path is another, or lies in it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
