package share

import (
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// call is one request being carried out. What it answers is appended to out, which has room before it for the headers.
type call struct {
	wire.Header
	*wire.Body
	s   *Server
	out []byte
	// hinted says that the guest side takes hints, which are sent before the answer.
	hinted bool
	hints  []byte
}

const headRoom = wire.FrameHead + wire.OutSize

// locks says what an operation needs of the tree.
type locks int

const (
	noTree locks = iota
	readTree
	writeTree
)

// operation is how one kind of request is carried out.
type operation struct {
	do   func(*Server, *call) error
	tree locks
	// changes is refused in a read-only directory; once is what must not be carried out twice.
	changes, once bool
	// quick takes no longer than the file system needs for a name or a page.
	quick bool
}

// operations is the table of what is served; everything else is ENOSYS, after which the kernel does without.
var operations = map[wire.Op]operation{
	wire.OpLookup:      {(*Server).lookup, readTree, false, true, true},
	wire.OpGetattr:     {(*Server).getattr, readTree, false, false, true},
	wire.OpSetattr:     {(*Server).setattr, readTree, true, false, true},
	wire.OpReadlink:    {(*Server).readlink, readTree, false, false, true},
	wire.OpSymlink:     {(*Server).symlink, readTree, true, true, true},
	wire.OpMknod:       {(*Server).mknod, readTree, true, true, false},
	wire.OpMkdir:       {(*Server).mkdir, readTree, true, true, true},
	wire.OpUnlink:      {(*Server).unlink, readTree, true, true, true},
	wire.OpRmdir:       {(*Server).rmdir, writeTree, true, true, true},
	wire.OpRename:      {(*Server).rename, writeTree, true, true, false},
	wire.OpRename2:     {(*Server).rename2, writeTree, true, true, false},
	wire.OpLink:        {(*Server).link, readTree, true, true, false},
	wire.OpOpen:        {(*Server).open, readTree, false, true, true},
	wire.OpRead:        {(*Server).read, noTree, false, false, false},
	wire.OpWrite:       {(*Server).write, noTree, true, true, true},
	wire.OpStatfs:      {(*Server).statfs, noTree, false, false, false},
	wire.OpRelease:     {(*Server).release, noTree, false, true, true},
	wire.OpFsync:       {(*Server).fsync, noTree, false, false, false},
	wire.OpSetxattr:    {(*Server).setxattr, readTree, true, true, false},
	wire.OpGetxattr:    {(*Server).getxattr, readTree, false, false, true},
	wire.OpListxattr:   {(*Server).listxattr, readTree, false, false, false},
	wire.OpRemovexattr: {(*Server).removexattr, readTree, true, true, false},
	wire.OpInit:        {(*Server).init, noTree, false, false, false},
	wire.OpOpendir:     {(*Server).opendir, readTree, false, true, true},
	wire.OpReaddir:     {(*Server).readdir, readTree, false, false, false},
	wire.OpReaddirplus: {(*Server).readdirplus, readTree, false, false, false},
	wire.OpReleasedir:  {(*Server).releasedir, noTree, false, true, true},
	wire.OpFsyncdir:    {(*Server).fsyncdir, noTree, false, false, false},
	wire.OpCreate:      {(*Server).create, readTree, true, true, true},
	wire.OpTmpfile:     {(*Server).tmpfile, readTree, true, true, false},
	wire.OpDestroy:     {(*Server).destroy, noTree, false, false, false},
	wire.OpFallocate:   {(*Server).fallocate, noTree, true, false, false},
	wire.OpLseek:       {(*Server).lseek, noTree, false, false, false},
	wire.OpCopyRange:   {(*Server).copyRange, noTree, true, true, false},
	wire.OpSyncfs:      {(*Server).syncfs, noTree, false, false, false},
}

// answer carries out a request and sends what came of it.
func (s *Server) answer(head wire.Header, body []byte, hinted bool, send func([]byte) error) {
	s.requests.Add(1)
	c := &call{Header: head, Body: wire.NewBody(body), s: s, out: s.buffers.get(0)[:headRoom], hinted: hinted}
	defer func() { s.buffers.put(c.out) }()
	s.gate.RLock()
	op := operations[head.Op]
	if op.once {
		s.mount.mu.Lock()
		old := s.mount.replies.find(head.Unique)
		s.mount.mu.Unlock()
		if old != nil {
			s.gate.RUnlock()
			s.repeated.Add(1)
			c.out = append(c.out[:wire.FrameHead], old...)
			wire.PutHead(c.out)
			_ = send(c.out)
			return
		}
	}
	errno := s.carryOut(op, c)
	if errno != 0 {
		c.out = c.out[:headRoom]
	}
	wire.PutOut(c.out[wire.FrameHead:], -int32(errno), head.Unique) //nolint:gosec // errno is small
	if op.once {
		s.mount.mu.Lock()
		s.mount.replies.add(head.Unique, c.out[wire.FrameHead:])
		s.mount.mu.Unlock()
	}
	s.gate.RUnlock()
	wire.PutHead(c.out)
	if errno != 0 || len(c.hints) == 0 {
		_ = send(c.out) // a stream that broke is noticed by its reader
		return
	}
	_ = send(append(c.hints, c.out...))
}

// carryOut runs one operation. A bug that a guest finds must cost it one request, not the VM: a panic is EIO.
func (s *Server) carryOut(op operation, c *call) (errno syscall.Errno) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request of the guest made the file server fail", "op", c.Op, "panic", p, "stack", string(debug.Stack()))
			errno = unix.EIO
		}
	}()
	switch {
	case op.do == nil:
		return unix.ENOSYS
	case op.changes && s.config.ReadOnly:
		return unix.EROFS
	case c.Op != wire.OpInit && !s.initialized():
		return unix.EIO
	}
	switch op.tree {
	case readTree:
		s.tree.RLock()
		defer s.tree.RUnlock()
	case writeTree:
		s.tree.Lock()
		defer s.tree.Unlock()
	case noTree:
	}
	return errnoOf(op.do(s, c))
}

// silent carries out what is not answered.
func (s *Server) silent(c *session, head wire.Header, body []byte) {
	r := wire.NewBody(body)
	if head.Op == wire.OpDone {
		if n := r.U32(); r.Err() == nil {
			c.refund(n)
			c.poke()
		}
		return
	}
	if !head.Op.Forgets() {
		return // INTERRUPT: nothing here takes long enough
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	s.mount.mu.Lock()
	s.mount.forgets++
	s.mount.mu.Unlock()
	if head.Op == wire.OpForget {
		if n := r.U64(); r.Err() == nil {
			s.table.forget(head.Node, n)
		}
		return
	}
	count := int(r.U32())
	r.Skip(4)
	for range min(count, r.Left()/16) {
		s.table.forget(r.U64(), r.U64())
	}
}

// room makes space for n bytes of answer.
func (c *call) room(n int) {
	if cap(c.out) >= headRoom+n {
		return
	}
	small, large := c.out, c.s.buffers.get(headRoom+n)
	c.out = large[:copy(large, small)]
	c.s.buffers.put(small)
}
