package share

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// xattrPrefix is of the attributes that a guest may have; all others mean something to the host's kernel.
const xattrPrefix = "user."

// xattrName takes the name of an attribute.
func xattrName(c *call) (string, error) {
	name := c.Text()
	if err := c.Err(); err != nil {
		return "", err
	}
	if !strings.HasPrefix(name, xattrPrefix) {
		return "", unix.EOPNOTSUPP
	}
	if name == xattrPrefix {
		return "", unix.EINVAL
	}
	if len(name) > wire.MaxName {
		return "", unix.ERANGE
	}
	return name, nil
}

// onXattr lends the place of the file that a request is about.
func (s *Server) onXattr(c *call, do func(n *node, f file) error) error {
	n, err := s.table.get(c.Node)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f, st, err := s.place(n)
	if err != nil {
		return err
	}
	defer f.close()
	if k := st.kind(); k != unix.S_IFREG && k != unix.S_IFDIR {
		return unix.EPERM
	}
	s.base(n, &st)
	return do(n, f)
}

// sized answers with data, or with its size if the guest asks for that with size 0.
func (c *call) sized(size uint32, data []byte) error {
	if size == 0 {
		c.out = wire.AppendU32(c.out, uint32(len(data))) //nolint:gosec // at most MaxXattr
		return nil
	}
	if len(data) > int(size) {
		return unix.ERANGE
	}
	c.room(len(data))
	c.out = append(c.out, data...)
	return nil
}

func (s *Server) getxattr(c *call) error {
	size := c.U32()
	c.Skip(4)
	name, err := xattrName(c)
	if err != nil {
		return err
	}
	return s.onXattr(c, func(_ *node, f file) error {
		buf := s.buffers.get(smallSize)
		defer func() { s.buffers.put(buf) }()
		n, err := unix.Getxattr(f.proc(), name, buf)
		if errors.Is(err, unix.ERANGE) {
			buf = append(buf[:0:0], make([]byte, wire.MaxXattr)...)
			n, err = unix.Getxattr(f.proc(), name, buf)
		}
		if err != nil {
			return err
		}
		return c.sized(size, buf[:n])
	})
}

func (s *Server) listxattr(c *call) error {
	size := c.U32()
	c.Skip(4)
	if err := c.End(); err != nil {
		return err
	}
	err := s.onXattr(c, func(_ *node, f file) error {
		n, err := unix.Listxattr(f.proc(), nil)
		if err != nil {
			return err
		}
		buf := make([]byte, min(n+256, wire.MaxXattr))
		if n, err = unix.Listxattr(f.proc(), buf); err != nil {
			return err
		}
		var out []byte
		for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if bytes.HasPrefix(name, []byte(xattrPrefix)) {
				out = append(append(out, name...), 0)
			}
		}
		return c.sized(size, out)
	})
	if errors.Is(err, unix.EPERM) {
		return c.sized(size, nil) // what can have none has none
	}
	return err
}

func (s *Server) setxattr(c *call) error {
	size, flags := c.U32(), c.U32()
	name, err := xattrName(c)
	if err != nil {
		return err
	}
	value := c.Bytes(int(size))
	if err := c.End(); err != nil {
		return err
	}
	if size > wire.MaxXattr {
		return unix.E2BIG
	}
	if flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return unix.EINVAL
	}
	return s.onXattr(c, func(n *node, f file) error {
		if err := s.quota.reserve(int64(size)); err != nil {
			return err
		}
		defer s.quota.add(-int64(size))
		if err := unix.Setxattr(f.proc(), name, value, int(flags)); err != nil {
			return err
		}
		return s.noted(n, f.fd)
	})
}

func (s *Server) removexattr(c *call) error {
	name, err := xattrName(c)
	if err != nil {
		return err
	}
	return s.onXattr(c, func(n *node, f file) error {
		if err := unix.Removexattr(f.proc(), name); err != nil {
			return err
		}
		return s.noted(n, f.fd)
	})
}
