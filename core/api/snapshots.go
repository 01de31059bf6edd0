package api

import "time"

// Where a snapshot comes from.
const (
	// OriginAuto is the ring of automatic snapshots.
	OriginAuto = "auto"
	// OriginManual is a snapshot that somebody asked for and named, or that compacting made.
	OriginManual = "manual"
	// OriginRevert is what was there before a revert.
	OriginRevert = "revert"
)

// What happened to a path. Between two snapshots a path that is new is OpNew; between a snapshot and now it is OpCreated.
const (
	OpNew      = "new"
	OpCreated  = "created"
	OpModified = "modified"
	OpDeleted  = "deleted"
	// OpUnchanged is only in a history.
	OpUnchanged = "unchanged"
)

// What a revert did to its path.
const (
	ActionRestored = "restored"
	ActionDeleted  = "deleted"
)

// SnapshotChange is one path that differs. A directory is named only when nothing in it says the same: it is empty, or only its own
// mode or attributes differ.
type SnapshotChange struct {
	Path string `json:"path"`
	// PathRaw is the path's bytes when they are no UTF-8, which JSON cannot carry.
	PathRaw   []byte `json:"path_raw,omitempty"`
	Op        string `json:"op"`
	Size      int64  `json:"size"`
	IsSymlink bool   `json:"is_symlink"`
	IsDir     bool   `json:"is_dir,omitempty"`
}

// SnapshotCreated is a snapshot that was made.
type SnapshotCreated struct {
	Checkpoint string `json:"checkpoint"`
	Name       string `json:"name"`
	Hash       string `json:"hash"`
	Origin     string `json:"origin"`
	FilesCount int    `json:"files_count"`
	// Available is how many more manual snapshots there is room for.
	Available int `json:"available"`
	// Unchanged says that nothing had changed since this snapshot, so that no other was made.
	Unchanged bool `json:"unchanged,omitempty"`
	// Skipped counts what is neither file, directory nor symlink, and what could not be read.
	Skipped int `json:"skipped,omitempty"`
}

// Snapshot is one snapshot and what changed in it since the one before.
type Snapshot struct {
	Checkpoint string           `json:"checkpoint"`
	Slot       int              `json:"slot"`
	Origin     string           `json:"origin"`
	Name       string           `json:"name"`
	Hash       string           `json:"hash"`
	Created    time.Time        `json:"created"`
	Age        string           `json:"age"`
	FilesCount int              `json:"files_count"`
	Changes    []SnapshotChange `json:"changes"`
}

// SnapshotsReply lists all snapshots, oldest first.
type SnapshotsReply struct {
	Snapshots       []Snapshot `json:"snapshots"`
	AutoMax         int        `json:"auto_max"`
	ManualMax       int        `json:"manual_max"`
	ManualAvailable int        `json:"manual_available"`
	// Damaged names snapshots that were moved aside because they cannot be read.
	Damaged []string `json:"damaged,omitempty"`
	// AutoFailed says why the last automatic snapshot was not taken, since this VM runs.
	AutoFailed string `json:"auto_failed,omitempty"`
	// Truncated says that there are more changes than are listed.
	Truncated bool `json:"truncated,omitempty"`
}

// WorkspaceChange is one path that differs between the newest snapshot that shows it and now.
type WorkspaceChange struct {
	SnapshotChange
	Checkpoint string `json:"checkpoint"`
	Origin     string `json:"origin"`
	Age        string `json:"age"`
}

// WorkspaceChangesReply is what changed in the workspace, each path once.
type WorkspaceChangesReply struct {
	Changes   []WorkspaceChange `json:"changes"`
	Truncated bool              `json:"truncated,omitempty"`
}

// SnapshotReverted is what a revert did. Reverting to Undo takes it back.
type SnapshotReverted struct {
	Reverted   bool   `json:"reverted"`
	Path       string `json:"path"`
	Action     string `json:"action"`
	Checkpoint string `json:"checkpoint"`
	Undo       string `json:"undo"`
}

// SnapshotVersion is a path in one snapshot.
type SnapshotVersion struct {
	Checkpoint string `json:"checkpoint"`
	Origin     string `json:"origin"`
	Name       string `json:"name"`
	Age        string `json:"age"`
	Size       int64  `json:"size"`
	Status     string `json:"status"`
}

// SnapshotHistory is a path in all snapshots, newest first. CurrentSize is absent when there is nothing at the path now.
type SnapshotHistory struct {
	Path        string            `json:"path"`
	CurrentSize *int64            `json:"current_size"`
	Versions    []SnapshotVersion `json:"versions"`
}

// SnapshotCompacted is a snapshot made of several.
type SnapshotCompacted struct {
	Compacted          bool     `json:"compacted"`
	Checkpoint         string   `json:"checkpoint"`
	Name               string   `json:"name"`
	Hash               string   `json:"hash"`
	MergedCount        int      `json:"merged_count"`
	DeletedCheckpoints []string `json:"deleted_checkpoints"`
	FilesCount         int      `json:"files_count"`
}

// SnapshotFileDiff is one path that differs, and how when both sides are text.
type SnapshotFileDiff struct {
	SnapshotChange
	// Diff is a unified diff; empty for what is no text or too large.
	Diff string `json:"diff,omitempty"`
	// Binary says that there is no Diff because the contents are no text.
	Binary bool `json:"binary,omitempty"`
	// TooLarge says that there is no Diff because a content, or all diffs together, are too large.
	TooLarge bool `json:"too_large,omitempty"`
}

// SnapshotDiffReply is what differs between two snapshots, or between one and now, when To is empty.
type SnapshotDiffReply struct {
	From      string             `json:"from"`
	To        string             `json:"to,omitempty"`
	Files     []SnapshotFileDiff `json:"files"`
	Truncated bool               `json:"truncated,omitempty"`
}
