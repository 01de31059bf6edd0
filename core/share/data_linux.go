package share

import (
	"math"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// maxCopy is how much one COPY_FILE_RANGE copies; the guest asks again for the rest.
const maxCopy = 16 << 20

func (s *Server) read(c *call) error {
	fh, off, size := c.U64(), c.U64(), c.U32()
	if err := c.Err(); err != nil {
		return err
	}
	if size > wire.MaxData || off > math.MaxInt64 {
		return unix.EINVAL
	}
	h, err := s.handle(fh, c.Node, false)
	if err != nil {
		return err
	}
	fd, done, err := h.use()
	if err != nil {
		return err
	}
	defer done()
	c.room(int(size))
	got := 0
	for got < int(size) {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Pread(fd, c.out[headRoom+got:headRoom+int(size)], int64(off)+int64(got)) //nolint:gosec // checked above
			return err
		})
		if err != nil && got == 0 {
			return err
		}
		if err != nil || n <= 0 {
			break
		}
		got += n
	}
	c.out = c.out[:headRoom+got]
	return nil
}

func (s *Server) write(c *call) error {
	fh, off, size, told := c.U64(), c.U64(), c.U32(), wire.Behind(c.U32())
	c.Skip(8)
	flags := c.U32()
	c.Skip(4)
	data := c.Bytes(int(size))
	if err := c.End(); err != nil {
		return err
	}
	if off > math.MaxInt64-wire.MaxData {
		return unix.EFBIG
	}
	h, err := s.handle(fh, c.Node, false)
	if err != nil {
		return err
	}
	fd, done, err := h.use()
	if err != nil {
		return err
	}
	defer done()
	n := h.node
	n.mu.Lock()
	defer n.mu.Unlock()
	s.baseFD(n, fd)
	at, err := s.writeAt(h, fd, int64(off), flags&unix.O_APPEND != 0)
	if err != nil {
		return err
	}
	want, err := s.growth(fd, at, len(data))
	if err != nil {
		return err
	}
	defer s.quota.add(-want)
	wrote, err := pwrite(fd, data, at)
	if st, statErr := statFD(fd); statErr == nil {
		strip(file{fd: fd}, &st)
		s.settle(n, &st)
	}
	if wrote > 0 {
		h.dirty.Store(true)
	}
	if err != nil && (wrote == 0 || told) { // whoever was told that all is done must learn that it is not
		return err
	}
	c.out = wire.AppendU32(c.out, uint32(wrote)) //nolint:gosec // at most the size
	return nil
}

// writeAt is where a write goes: where the guest says, but when it appends, to the end as it is on the host.
func (s *Server) writeAt(h *handle, fd int, off int64, appends bool) (int64, error) {
	if !h.writable() {
		return 0, unix.EBADF
	}
	if !appends {
		return off, nil
	}
	st, err := statFD(fd)
	if err != nil {
		return 0, err
	}
	if end := int64(st.Size); end != off { //nolint:gosec // the kernel's size
		s.invalidate(inval{node: h.node.id}) // somebody on the host has written too
		return end, nil
	}
	return off, nil
}

// growth reserves what a write may add to the file's blocks. Within a file without holes that is nothing; blocks behind its end can make
// one with holes look so.
func (s *Server) growth(fd int, off int64, size int) (int64, error) {
	if s.quota == nil {
		return 0, nil
	}
	if s.quota.ample(int64(size)) {
		return int64(size), nil
	}
	st, err := statFD(fd)
	if err != nil {
		return 0, err
	}
	want := int64(size)
	if full := int64(st.Size); int64(st.Blocks)*512 >= full && !s.quota.past() { //nolint:gosec // the kernel's sizes
		want = min(want, max(0, off+int64(size)-full))
	}
	return want, s.quota.reserve(want)
}

func pwrite(fd int, data []byte, off int64) (int, error) {
	wrote := 0
	for wrote < len(data) {
		var n int
		err := retry(func() (err error) { n, err = unix.Pwrite(fd, data[wrote:], off+int64(wrote)); return err })
		if err != nil {
			return wrote, err
		}
		if n <= 0 {
			return wrote, unix.EIO
		}
		wrote += n
	}
	return wrote, nil
}

func (s *Server) fallocate(c *call) error {
	fh, off, size, mode := c.U64(), c.U64(), c.U64(), c.U32()
	if err := c.Err(); err != nil {
		return err
	}
	if off > math.MaxInt64 || size > math.MaxInt64-off {
		return unix.EFBIG
	}
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	if mode != 0 && mode != keep && mode != punch|keep && mode != zero && mode != zero|keep {
		return unix.EOPNOTSUPP
	}
	h, err := s.handle(fh, c.Node, false)
	if err != nil {
		return err
	}
	fd, done, err := h.use()
	if err != nil {
		return err
	}
	defer done()
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	s.baseFD(h.node, fd)
	want := int64(size) //nolint:gosec // checked above
	if mode&punch != 0 {
		want = 0
	}
	if err := s.quota.reserve(want); err != nil {
		return err
	}
	defer s.quota.add(-want)
	err = retry(func() error { return unix.Fallocate(fd, mode, int64(off), int64(size)) }) //nolint:gosec // checked above
	if err != nil {
		return err
	}
	h.dirty.Store(true)
	return s.noted(h.node, fd)
}

// noted settles a file after a change. n.mu is held.
func (s *Server) noted(n *node, fd int) error {
	st, err := statFD(fd)
	if err != nil {
		return err
	}
	strip(file{fd: fd}, &st)
	s.settle(n, &st)
	return nil
}

func (s *Server) lseek(c *call) error {
	fh, off, whence := c.U64(), c.U64(), c.U32()
	if err := c.Err(); err != nil {
		return err
	}
	if (whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE) || off > math.MaxInt64 {
		return unix.EINVAL
	}
	h, err := s.handle(fh, c.Node, false)
	if err != nil {
		return err
	}
	fd, done, err := h.use()
	if err != nil {
		return err
	}
	defer done()
	at, err := unix.Seek(fd, int64(off), int(whence))
	if err != nil {
		return err
	}
	c.out = wire.AppendU64(c.out, uint64(at)) //nolint:gosec // not negative
	return nil
}

func (s *Server) copyRange(c *call) error {
	fhIn, offIn, nodeOut, fhOut, offOut, size, flags := c.U64(), c.U64(), c.U64(), c.U64(), c.U64(), c.U64(), c.U64()
	if err := c.End(); err != nil {
		return err
	}
	if flags != 0 || offIn > math.MaxInt64-maxCopy || offOut > math.MaxInt64-maxCopy {
		return unix.EINVAL
	}
	from, err := s.handle(fhIn, c.Node, false)
	if err != nil {
		return err
	}
	to, err := s.handle(fhOut, nodeOut, false)
	if err != nil {
		return err
	}
	in, doneIn, err := from.use()
	if err != nil {
		return err
	}
	defer doneIn()
	out := in
	if from != to { // nobody may wait for a handle twice: it could be closed in between
		var doneOut func()
		if out, doneOut, err = to.use(); err != nil {
			return err
		}
		defer doneOut()
	}
	to.node.mu.Lock()
	defer to.node.mu.Unlock()
	s.baseFD(to.node, out)
	length := int(min(size, maxCopy))
	want, err := s.growth(out, int64(offOut), length)
	if err != nil {
		return err
	}
	defer s.quota.add(-want)
	readAt, writeAt := int64(offIn), int64(offOut)
	n, err := unix.CopyFileRange(in, &readAt, out, &writeAt, length, 0)
	if err != nil {
		return unix.EOPNOTSUPP // the guest's kernel copies by reading and writing, and meets the real error
	}
	to.dirty.Store(true)
	c.out = wire.AppendU32(c.out, uint32(n)) //nolint:gosec // at most maxCopy
	return s.noted(to.node, out)
}
