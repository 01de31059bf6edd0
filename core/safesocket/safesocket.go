// Package safesocket is unix sockets that only their owner can use: mode 0600 in a directory of the owner's, the peer's
// user checked by the kernel's word, and paths of any length (sockaddr_un takes about 100 bytes).
package safesocket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"capsem/core/fault"
)

// MaxPath is the longest path that is bound as it is; macOS takes 103 bytes, Linux 107.
const MaxPath = 100

// ErrInUse is returned by Listen when another process answers on the socket.
var ErrInUse = errors.New("another process listens on the socket")

// Resolve returns where the socket called path really is: path itself, or, when it is too long for the kernel, a short
// name made of its hash in a directory of the user's under /tmp. TMPDIR has no say: the service and its workers, which have no
// environment, must come to the same name.
func Resolve(path string) string {
	if len(path) <= MaxPath {
		return path
	}
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(shortDir(), hex.EncodeToString(sum[:12])+".sock")
}

func shortDir() string {
	return filepath.Join("/tmp", "capsem-"+strconv.Itoa(os.Geteuid()))
}

// Listener accepts connections of the same user only; others are closed without a word.
type Listener struct {
	*net.UnixListener
}

// Listen binds the socket with mode 0600. Its directory must exist unless the path is too long (see Resolve). A socket
// file that nobody answers on is replaced; ErrInUse when somebody does.
func Listen(ctx context.Context, path string) (*Listener, error) {
	at := Resolve(path)
	if at != path {
		if err := ownDir(filepath.Dir(at)); err != nil {
			return nil, err
		}
	}
	if err := clearAway(ctx, at); err != nil {
		return nil, err
	}
	// Bound under a temporary name and renamed when its mode is right: there is no moment in which others could connect.
	temp := filepath.Join(filepath.Dir(at), ".s"+strconv.Itoa(os.Getpid())+strconv.FormatInt(time.Now().UnixNano()%1e6, 36))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, explain(path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(temp, 0o600); err != nil {
		return nil, errors.Join(explain(path, err), l.Close(), os.Remove(temp))
	}
	if err := os.Rename(temp, at); err != nil {
		return nil, errors.Join(explain(path, err), l.Close(), os.Remove(temp))
	}
	return &Listener{l}, nil
}

func explain(path string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fault.Wrap(err, fault.NoSpace, "no space left for the socket %s", path).WithHint("free some space on that disk")
	}
	return fmt.Errorf("listen on %s: %w", path, err)
}

// clearAway removes a socket that nobody answers on.
func clearAway(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fault.New(fault.Conflict, "%s is in the way: it is no socket", path).WithHint("move it away")
	}
	conn, err := dial(ctx, path)
	if err == nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", path, ErrInUse), conn.Close())
	}
	if errors.Is(err, syscall.EAGAIN) { // its queue is full: somebody listens
		return fmt.Errorf("listen on %s: %w", path, ErrInUse)
	}
	// Anything but a refusal (ctx has ended, no permission, no descriptors) does not say that nobody is there.
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// ownDir makes a directory that only this user can enter, and refuses one that somebody else has prepared.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory for sockets: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("make directory for sockets: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Forbidden, "%s is not a directory of yours alone", dir).
			WithHint("remove it; a CAPSEM_HOME with a shorter path needs none")
	}
	return nil
}

// Accept returns the next connection of the same user.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err //nolint:wrapcheck // net.Listener's own errors are looked at
		}
		uid, err := PeerUID(conn)
		if err == nil && uid == os.Geteuid() {
			return conn, nil
		}
		_ = conn.Close() // a stranger is owed nothing
	}
}

// Dial connects to the socket called path, wherever Listen has put it, and checks that it belongs to the same user.
func Dial(ctx context.Context, path string) (*net.UnixConn, error) {
	conn, err := dial(ctx, Resolve(path))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	uid, err := PeerUID(conn)
	if err == nil && uid != os.Geteuid() {
		err = fault.New(fault.Forbidden, "%s is served by user %d", path, uid).WithHint("run capsem as that user, or choose another CAPSEM_HOME")
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err //nolint:wrapcheck // callers do
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), conn.Close())
	}
	return unix, nil
}

// Remove takes a socket's name away.
func Remove(path string) error {
	if err := os.Remove(Resolve(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}

// PeerUID is the user at the other end, as the kernel says.
func PeerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("peer of socket: %w", err)
	}
	uid := -1
	var inner error
	if err := raw.Control(func(fd uintptr) { uid, inner = peerUID(int(fd)) }); err != nil {
		return -1, fmt.Errorf("peer of socket: %w", err)
	}
	if inner != nil {
		return -1, fmt.Errorf("peer of socket: %w", inner)
	}
	return uid, nil
}
