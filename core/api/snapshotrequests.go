package api

// SnapshotCreateRequest makes a snapshot by hand.
type SnapshotCreateRequest struct {
	// Name is 1-64 of A-Z, a-z, 0-9, "-" and "_"; several may have the same. Empty is the time.
	Name string `json:"name,omitempty"`
}

// SnapshotRevertRequest puts a path back.
type SnapshotRevertRequest struct {
	// Path is relative to the workspace, or beneath /root; empty is everything. PathRaw is its bytes when they are no UTF-8.
	Path    string `json:"path,omitempty"`
	PathRaw []byte `json:"path_raw,omitempty"`
	// Checkpoint is where from; empty is the newest snapshot that has it and differs.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// SnapshotCompactRequest makes one snapshot of several.
type SnapshotCompactRequest struct {
	Checkpoints []string `json:"checkpoints"`
	Name        string   `json:"name,omitempty"`
}
