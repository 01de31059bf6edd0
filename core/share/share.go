// Package share serves one directory of the host to a guest that is not trusted: FUSE messages over a byte stream
// (core/share/wire; the guest side is core/guest/share).
//
// A node of the guest's kernel is a place in a table, never a path of the guest's: each operation opens the node anew,
// beneath the root, following no symbolic link and crossing into no other file system, and checks that it still is the
// file that the guest was told of. So neither "..", a link nor a directory swapped for a link while an operation runs
// leads outside, and a node costs no open file.
//
// In the guest everything belongs to root. On the host files made by the guest belong to Config.UID, never carry setuid
// or setgid, and are never devices. Fifos and sockets may be made: the guest's kernel implements them, and the host never
// opens what is not a regular file or a directory. File systems mounted inside the directory are not shared.
//
// A completed write is on the host's file system, or will be before anything that the guest does later can be noticed (core/share/wire, writes
// behind). The guest caches data, names and attributes for long, for as long as
// inotify tells of edits by others; those are sent to it as invalidations. Where inotify does not work (a file system
// of the network, no more watches) it caches for a second, and file contents until the next open.
package share

import (
	"errors"
	"log/slog"
	"time"
)

var (
	// ErrClosed is a server that was closed.
	ErrClosed = errors.New("the shared directory's server is closed")
	// ErrState is saved state that is damaged, too large or of another version.
	ErrState = errors.New("the shared directory's saved state cannot be used")
	// ErrUnsupported is a host that cannot serve a directory this way.
	ErrUnsupported = errors.New("this system cannot serve a shared directory over FUSE")
)

// Config says what is shared, and how.
type Config struct {
	// Root is the directory, by a path without symbolic links. It may be replaced on the host later; the server stays with the one that it opened.
	Root string
	// ReadOnly refuses every change, on the host.
	ReadOnly bool
	// Tag names the directory in logs and to the guest side.
	Tag string
	// UID and GID own what the guest makes, if the server runs as root; else it belongs to the server's user.
	UID, GID int
	// Quota bounds what the guest can use.
	Quota Quota
	// Log receives what the owner should know. It may be nil.
	Log *slog.Logger
	// Events is called for each change by the guest. It must not block. It may be nil.
	Events func(Event)
	// State is what Save returned, for a guest that goes on; nil for a new one.
	State []byte
	// Copied says that State belongs to a copy of Root (a fork, a snapshot put back): files are told by their path and
	// type instead of their inode.
	Copied bool
}

// Quota bounds what a guest can use; a zero is the default.
type Quota struct {
	// Bytes is the most that the directory may hold, counted as allocated on the disk. 0 is no bound.
	Bytes int64
	// Handles is the most files and directories open at once: 16,384, and less than the process may have open.
	Handles int
	// InFlight is the most requests carried out at once: 16.
	InFlight int
	// Nodes is the most files that the guest's kernel may know at once: 524,288.
	Nodes int
	// Watches is the most directories watched for changes by others: 8,192.
	Watches int
}

const (
	defaultHandles  = 16384
	defaultInFlight = 16
	defaultNodes    = 512 << 10
	defaultWatches  = 8192
)

func (q Quota) withDefaults() Quota {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&q.Handles, defaultHandles)
	set(&q.InFlight, defaultInFlight)
	set(&q.Nodes, defaultNodes)
	set(&q.Watches, defaultWatches)
	return q
}

// Action is what a guest did to a file.
type Action string

// The actions. A file written through a handle is modified when the handle is closed or synced.
const (
	Created  Action = "created"
	Modified Action = "modified"
	Deleted  Action = "deleted"
	Renamed  Action = "renamed"
)

// Event is one change by the guest.
type Event struct {
	// Path is relative to the root. Names are bytes: it need not be UTF-8.
	Path string
	// From is the former path of what was renamed.
	From   string
	Action Action
	Size   int64
	// PID is the process in the guest, as the guest's kernel says; 0 when unknown.
	PID uint32
}

// Stats is what a server has in use and has done.
type Stats struct {
	Nodes, Handles, Watches int
	// Bytes is what the directory holds, if there is a quota.
	Bytes int64
	// Requests, Invalidations and Repeated count since New: requests carried out, notifications sent, and answers sent
	// again to a guest side that had not received them.
	Requests, Invalidations, Repeated uint64
}

const (
	// longValid is how long the guest may cache where changes by others are noticed, shortValid elsewhere; so it is for names that do
	// not exist, if they are too many to remember.
	longValid  = 10 * time.Minute
	shortValid = time.Second
)
