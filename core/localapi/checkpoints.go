package localapi

import (
	"net/http"

	"capsem/core/api"
)

func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) error {
	var req api.CheckpointRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.Checkpoint(r.Context(), r.PathValue("id"), req)
	return answer(w, reply, err)
}

func (s *Server) checkpoints(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Checkpoints(r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) deleteCheckpoint(w http.ResponseWriter, r *http.Request) error {
	return answer(w, api.Success{Success: true}, s.svc.DeleteCheckpoint(r.Context(), r.PathValue("id"), r.PathValue("name")))
}

func (s *Server) rewind(w http.ResponseWriter, r *http.Request) error {
	var req api.RewindRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.Rewind(r.Context(), r.PathValue("id"), req.Name)
	return answer(w, reply, err)
}
