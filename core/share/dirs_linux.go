package share

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// maxListing bounds one answer to READDIR.
const maxListing = 128 << 10

// listings are buffers for what the host's kernel says of a directory.
var listings = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (s *Server) opendir(c *call) error {
	n, err := s.table.get(c.Node)
	if err != nil {
		return err
	}
	if n.kind != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if err := s.handles.room(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at, st, err := s.place(n)
	if err != nil {
		return err
	}
	defer at.close()
	s.watcher.ensure(n, at)
	f, _, err := s.reopen(at, &st, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	h, err := s.addHandle(n, f, unix.O_RDONLY, true, c.PID)
	if err != nil {
		return err
	}
	var flags uint32
	s.table.mu.Lock()
	if n.watch != 0 {
		flags = wire.OpenCacheDir | wire.OpenKeepCache
	}
	s.table.mu.Unlock()
	c.out = wire.AppendOpen(c.out, h.id, flags)
	return nil
}

func (s *Server) releasedir(c *call) error {
	fh := c.U64()
	if err := c.Err(); err != nil {
		return err
	}
	h := s.dropHandle(fh, c.Node, true)
	if h == nil {
		return unix.EBADF
	}
	s.shut(h)
	return nil
}

func (s *Server) fsyncdir(c *call) error    { return s.syncHandle(c, true) }
func (s *Server) readdir(c *call) error     { return s.list(c, false) }
func (s *Server) readdirplus(c *call) error { return s.list(c, true) }

// list answers with entries from a position that the host's kernel gave for the entry before. Nothing is kept between two
// calls, however long the directory is.
func (s *Server) list(c *call, plus bool) error {
	fh, off, size := c.U64(), c.U64(), c.U32()
	if err := c.Err(); err != nil {
		return err
	}
	if off > math.MaxInt64 {
		return unix.EINVAL
	}
	h, err := s.handle(fh, c.Node, true)
	if err != nil {
		return err
	}
	fd, done, err := h.use()
	if err != nil {
		return err
	}
	defer done()
	size = min(size, maxListing)
	c.room(int(size))
	h.dirMu.Lock()
	defer h.dirMu.Unlock()
	if h.pos != int64(off) {
		if _, err := unix.Seek(fd, int64(off), unix.SEEK_SET); err != nil {
			return err
		}
	}
	h.pos = -1
	return s.fill(c, h, fd, headRoom+int(size), plus)
}

// fill appends entries while they fit below limit.
func (s *Server) fill(c *call, h *handle, fd, limit int, plus bool) error {
	p, _ := listings.Get().(*[32 << 10]byte)
	defer listings.Put(p)
	last := int64(-1)
	for {
		n, err := unix.ReadDirent(fd, p[:])
		if err != nil && len(c.out) == headRoom {
			return err
		}
		if err != nil || n <= 0 {
			h.pos = last // the kernel stands behind the last entry
			return nil
		}
		for rest := p[:n]; len(rest) > 0; {
			e, size := parseDirent(rest)
			if size == 0 {
				return unix.EIO
			}
			rest = rest[size:]
			if !s.listed(c, h.node, fd, e, limit, plus) {
				return nil
			}
			last = int64(e.Next) //nolint:gosec // the kernel's position, handed back as it is
		}
	}
}

// parseDirent decodes one entry of getdents64.
func parseDirent(b []byte) (wire.Dirent, int) {
	const head = 19
	if len(b) < head {
		return wire.Dirent{}, 0
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < head || size > len(b) {
		return wire.Dirent{}, 0
	}
	name := b[head:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return wire.Dirent{
		Ino: binary.NativeEndian.Uint64(b), Next: binary.NativeEndian.Uint64(b[8:]), Type: uint32(b[18]), Name: string(name),
	}, size
}

// listed appends one entry, and reports whether it fitted.
func (s *Server) listed(c *call, dir *node, fd int, e wire.Dirent, limit int, plus bool) bool {
	need := wire.DirentSize(len(e.Name))
	if plus {
		need += wire.EntrySize
	}
	if len(c.out)+need > limit {
		return false
	}
	if plus {
		c.out = wire.AppendEntry(c.out, s.listedEntry(dir, fd, e.Name))
	}
	c.out = wire.AppendDirent(c.out, e)
	return true
}

// listedEntry looks a name up on the way. What cannot be told now is looked up by the guest when it needs it.
func (s *Server) listedEntry(dir *node, fd int, name string) wire.Entry {
	if wire.CheckName(name) != nil {
		return wire.Entry{}
	}
	st, err := statAt(fd, name)
	if err != nil || st.mounted() || !shareable(st.kind()) {
		return wire.Entry{}
	}
	n, _, err := s.table.attach(dir, name, &st)
	if err != nil {
		return wire.Entry{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if seenOf(&st) != n.seen {
		if again, err := statAt(fd, name); err == nil && n.is(&again) {
			st = again
			s.observe(n, &st)
		}
	}
	return s.entryOf(n, dir, &st)
}
