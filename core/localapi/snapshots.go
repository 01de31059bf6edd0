package localapi

import (
	"errors"
	"io"
	"net/http"

	"capsem/core/api"
	"capsem/core/proto"
)

func (s *Server) snapshotRoutes() []route {
	path := param{"path", "string", "a path in the workspace, or beneath /root; empty is all of it", false}
	return []route{
		{method: "GET", path: "/snapshots/{id}", summary: "The snapshots of a VM's workspace", out: api.SnapshotsReply{}, run: s.listSnapshots},
		{method: "POST", path: "/snapshots/{id}", summary: "Make a snapshot", in: api.SnapshotCreateRequest{}, out: api.SnapshotCreated{}, run: s.createSnapshot},
		{method: "GET", path: "/snapshots/{id}/changes", summary: "What has changed since", out: api.WorkspaceChangesReply{}, run: s.snapshotChanges},
		{
			method: "GET", path: "/snapshots/{id}/diff", summary: "What differs between two snapshots, or one and now", out: api.SnapshotDiffReply{}, run: s.snapshotDiff,
			query: []param{{"from", "string", "a snapshot", true}, {"to", "string", "another; empty is now", false}, path},
		},
		{method: "POST", path: "/snapshots/{id}/revert", summary: "Put a path back", in: api.SnapshotRevertRequest{}, out: api.SnapshotReverted{}, run: s.revertSnapshot},
		{
			method: "GET", path: "/snapshots/{id}/history", summary: "A path in all snapshots", out: api.SnapshotHistory{}, run: s.snapshotHistory,
			query: []param{path},
		},
		{method: "POST", path: "/snapshots/{id}/compact", summary: "Make one of several", in: api.SnapshotCompactRequest{}, out: api.SnapshotCompacted{}, run: s.compactSnapshots},
		{method: "DELETE", path: "/snapshots/{id}/{checkpoint}", summary: "Remove a snapshot", out: api.Success{}, run: s.deleteSnapshot},
		{
			method: "GET", path: "/snapshots/{id}/{checkpoint}/content", summary: "A file of a snapshot", out: raw, run: s.snapshotFile, query: []param{path},
		},
	}
}

// snapshots does one request and passes the answer on.
func (s *Server) snapshots(w http.ResponseWriter, r *http.Request, req *proto.SnapshotRequest, kind string) error {
	answer, err := s.svc.Snapshots(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	w.Header().Set("Content-Type", kind)
	_, err = io.Copy(w, answer)
	if err := errors.Join(err, answer.Close()); err != nil {
		panic(http.ErrAbortHandler) // the reader must not take it for complete
	}
	return nil
}

const jsonType = "application/json"

func (s *Server) listSnapshots(w http.ResponseWriter, r *http.Request) error {
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotList}, jsonType)
}

func (s *Server) createSnapshot(w http.ResponseWriter, r *http.Request) error {
	var req api.SnapshotCreateRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotCreate, Name: req.Name}, jsonType)
}

func (s *Server) snapshotChanges(w http.ResponseWriter, r *http.Request) error {
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotChanges}, jsonType)
}

func (s *Server) snapshotDiff(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotDiff, Checkpoint: q.Get("from"), To: q.Get("to"), Path: []byte(q.Get("path"))}, jsonType)
}

func (s *Server) revertSnapshot(w http.ResponseWriter, r *http.Request) error {
	var req api.SnapshotRevertRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	path := req.PathRaw
	if len(path) == 0 {
		path = []byte(req.Path)
	}
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotRevert, Path: path, Checkpoint: req.Checkpoint}, jsonType)
}

func (s *Server) snapshotHistory(w http.ResponseWriter, r *http.Request) error {
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotHistory, Path: []byte(r.URL.Query().Get("path"))}, jsonType)
}

func (s *Server) compactSnapshots(w http.ResponseWriter, r *http.Request) error {
	var req api.SnapshotCompactRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotCompact, Checkpoints: req.Checkpoints, Name: req.Name}, jsonType)
}

func (s *Server) deleteSnapshot(w http.ResponseWriter, r *http.Request) error {
	return s.snapshots(w, r, &proto.SnapshotRequest{Op: proto.SnapshotDelete, Checkpoint: r.PathValue("checkpoint")}, jsonType)
}

func (s *Server) snapshotFile(w http.ResponseWriter, r *http.Request) error {
	req := &proto.SnapshotRequest{Op: proto.SnapshotRead, Checkpoint: r.PathValue("checkpoint"), Path: []byte(r.URL.Query().Get("path"))}
	return s.snapshots(w, r, req, raw)
}
