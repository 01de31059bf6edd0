package share

import (
	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// wanted is what is asked of the guest's kernel. Templates have it (core/template): whoever changes it raises their version. Not among it: the write-back cache (a completed write must be on the
// host), and locks, which stay in the guest.
const wanted = wire.CapAsyncRead | wire.CapAtomicTrunc | wire.CapBigWrites | wire.CapReaddirplus |
	wire.CapReaddirplusAuto | wire.CapAsyncDIO | wire.CapParallelDirops | wire.CapMaxPages | wire.CapCacheSymlinks |
	wire.CapExplicitInval | wire.CapKillprivV2

const (
	background   = 32
	maxReadahead = wire.MaxData
)

// init negotiates. A later session of the same mount is told the same again, whatever this version would say.
func (s *Server) init(c *call) error {
	in, err := wire.ParseInit(c.Bytes(c.Left()))
	if err != nil {
		return err
	}
	if in.Major < wire.Major || (in.Major == wire.Major && in.Minor < wire.MinMinor) {
		s.log.Error("the guest's kernel is too old for shared directories", "fuse", in.Major, "minor", in.Minor)
		return unix.EPROTO
	}
	s.mount.mu.Lock()
	defer s.mount.mu.Unlock()
	if s.mount.init == nil {
		s.mount.init = &wire.Init{
			Major: wire.Major, Minor: min(in.Minor, wire.Minor), Readahead: min(in.Readahead, maxReadahead),
			Flags: in.Flags & wanted, Background: background,
		}
		if in.Major > wire.Major {
			s.mount.init.Minor = wire.Minor
		}
	}
	c.out = wire.AppendInit(c.out, *s.mount.init)
	return nil
}

func (s *Server) initialized() bool {
	s.mount.mu.Lock()
	defer s.mount.mu.Unlock()
	return s.mount.init != nil
}

// destroy is the end of the mount; its nodes go when another begins, or the server.
func (s *Server) destroy(*call) error { return nil }

// statfs tells of the host's file system, or of the quota where that is less.
func (s *Server) statfs(c *call) error {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(s.rootFD, &st) }); err != nil {
		return err
	}
	bsize := uint64(max(st.Bsize, 512))
	out := wire.Statfs{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(min(bsize, wire.MaxData)),
	}
	if used, limit := s.quota.state(); s.quota != nil {
		free := uint64(max(0, limit-used)) / bsize //nolint:gosec // not negative
		out.Blocks = min(out.Blocks, uint64(limit)/bsize)
		out.Bfree, out.Bavail = min(out.Bfree, free), min(out.Bavail, free)
	}
	c.out = wire.AppendStatfs(c.out, out)
	return nil
}

func (s *Server) syncfs(*call) error {
	f, err := openHow(s.rootFD, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.close()
	return retry(func() error { return unix.Syncfs(f.fd) })
}
