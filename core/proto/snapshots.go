package proto

import (
	"errors"
	"fmt"
	"strings"
)

// SnapshotOp is what a SnapshotRequest does with the snapshots of a workspace.
type SnapshotOp string

// The operations.
const (
	SnapshotCreate  SnapshotOp = "create"
	SnapshotList    SnapshotOp = "list"
	SnapshotChanges SnapshotOp = "changes"
	SnapshotDiff    SnapshotOp = "diff"
	SnapshotRevert  SnapshotOp = "revert"
	SnapshotHistory SnapshotOp = "history"
	SnapshotDelete  SnapshotOp = "delete"
	SnapshotCompact SnapshotOp = "compact"
	// SnapshotRead answers with the bytes of a file.
	SnapshotRead SnapshotOp = "read"
)

// maxSnapshotIDs bounds how many snapshots one request names.
const maxSnapshotIDs = 100

// SnapshotRequest is one CBOR frame: on PortSnapshots after the stream header, and in a WorkerRequest. It is answered with one
// SnapshotReply frame and, without an error, JSON (for read, the file's bytes) up to the end of the stream.
type SnapshotRequest struct {
	Op SnapshotOp `cbor:"op"`
	// Name is that of a new snapshot.
	Name string `cbor:"name,omitempty"`
	// Path is in the workspace: relative, or beneath /root. Its bytes are those of the file's name.
	Path []byte `cbor:"path,omitempty"`
	// Checkpoint is a snapshot, such as cp-3; To is the other one of a diff, empty for what there is now.
	Checkpoint string `cbor:"checkpoint,omitempty"`
	To         string `cbor:"to,omitempty"`
	// Checkpoints are those to compact.
	Checkpoints []string `cbor:"checkpoints,omitempty"`
}

// Validate bounds every field; what they mean is up to who does it.
func (r *SnapshotRequest) Validate() error {
	switch r.Op {
	case SnapshotCreate, SnapshotList, SnapshotChanges, SnapshotDiff, SnapshotRevert, SnapshotHistory, SnapshotDelete, SnapshotCompact, SnapshotRead:
	default:
		return fmt.Errorf("unknown snapshot operation %.20q", r.Op)
	}
	if len(r.Checkpoints) > maxSnapshotIDs || len(r.Path) > MaxPath || strings.Contains(string(r.Path), "\x00") {
		return errors.New("snapshots: too many snapshots, or an impossible path")
	}
	for _, text := range append([]string{r.Name, r.Checkpoint, r.To}, r.Checkpoints...) {
		if len(text) > 128 || strings.ContainsAny(text, "/\x00\n") {
			return errors.New("snapshots: an impossible name")
		}
	}
	return nil
}

// SnapshotReply begins the answer.
type SnapshotReply struct {
	// Error says why it was not done; nothing follows then.
	Error *StreamError `cbor:"error,omitempty"`
}
