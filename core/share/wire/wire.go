// Package wire is what crosses the stream between a shared directory's guest side, which relays the messages of the
// guest's kernel, and the file server on the host: frames, the handshake, and the FUSE messages themselves.
//
// The kernel's structures are decoded here and not by a FUSE library: those decode the layout of the system they are built
// for, leave out operations that we serve, and treat some file names specially.
package wire

// RootID is the node that the kernel knows from the start.
const RootID = 1

const (
	// Major and Minor are the FUSE protocol served; an older kernel than MinMinor (Linux 5.4) is refused.
	Major, Minor, MinMinor = 7, 38, 31
	// MaxData is the most that one READ or WRITE carries.
	MaxData = 1 << 20
	// MaxMessage bounds a message either way: data, and a page for headers and names.
	MaxMessage = MaxData + 4096
	// MaxName is the longest file name, in bytes.
	MaxName = 255
	// MaxTarget is the longest target of a symbolic link.
	MaxTarget = 4095
	// MaxXattr bounds the value of an extended attribute, and a list of their names.
	MaxXattr = 64 << 10
	// MaxRequests is how many requests the guest side has under way at most; the host keeps that many answers to repeat.
	MaxRequests = 512
)

// Op is a request's operation.
type Op uint32

// The operations, as the kernel numbers them.
const (
	OpLookup      Op = 1
	OpForget      Op = 2
	OpGetattr     Op = 3
	OpSetattr     Op = 4
	OpReadlink    Op = 5
	OpSymlink     Op = 6
	OpMknod       Op = 8
	OpMkdir       Op = 9
	OpUnlink      Op = 10
	OpRmdir       Op = 11
	OpRename      Op = 12
	OpLink        Op = 13
	OpOpen        Op = 14
	OpRead        Op = 15
	OpWrite       Op = 16
	OpStatfs      Op = 17
	OpRelease     Op = 18
	OpFsync       Op = 20
	OpSetxattr    Op = 21
	OpGetxattr    Op = 22
	OpListxattr   Op = 23
	OpRemovexattr Op = 24
	OpFlush       Op = 25
	OpInit        Op = 26
	OpOpendir     Op = 27
	OpReaddir     Op = 28
	OpReleasedir  Op = 29
	OpFsyncdir    Op = 30
	OpAccess      Op = 34
	OpCreate      Op = 35
	OpInterrupt   Op = 36
	OpDestroy     Op = 38
	OpBatchForget Op = 42
	OpFallocate   Op = 43
	OpReaddirplus Op = 44
	OpRename2     Op = 45
	OpLseek       Op = 46
	OpCopyRange   Op = 47
	OpSyncfs      Op = 50
	OpTmpfile     Op = 51
	// OpDone is our own: the guest side says how many notifications it has handed to its kernel.
	OpDone Op = 0xca50_0001
)

// NoReply reports whether an operation is never answered.
func (o Op) NoReply() bool {
	return o == OpForget || o == OpBatchForget || o == OpInterrupt || o == OpDone
}

// Forgets reports whether an operation takes back lookups.
func (o Op) Forgets() bool { return o == OpForget || o == OpBatchForget }

// Capabilities negotiated in INIT.
const (
	CapAsyncRead       = 1 << 0
	CapAtomicTrunc     = 1 << 3
	CapBigWrites       = 1 << 5
	CapReaddirplus     = 1 << 13
	CapReaddirplusAuto = 1 << 14
	CapAsyncDIO        = 1 << 15
	CapParallelDirops  = 1 << 18
	CapMaxPages        = 1 << 22
	CapCacheSymlinks   = 1 << 23
	CapExplicitInval   = 1 << 25
	CapKillprivV2      = 1 << 28
)

// Flags of an answer to OPEN and OPENDIR.
const (
	OpenKeepCache = 1 << 1
	OpenCacheDir  = 1 << 3
)

// Notifications: the host tells the guest's kernel that something it has cached is no longer so.
const (
	NotifyInvalInode = 2
	NotifyInvalEntry = 3
)

// What a SETATTR sets.
const (
	SetMode     = 1 << 0
	SetUID      = 1 << 1
	SetGID      = 1 << 2
	SetSize     = 1 << 3
	SetAtime    = 1 << 4
	SetMtime    = 1 << 5
	SetFh       = 1 << 6
	SetAtimeNow = 1 << 7
	SetMtimeNow = 1 << 8
)

// GetattrFh says that a GETATTR names a handle.
const GetattrFh = 1 << 0
