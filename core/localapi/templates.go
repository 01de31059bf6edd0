package localapi

import (
	"net/http"

	"capsem/core/api"
)

func (s *Server) templates(w http.ResponseWriter, _ *http.Request) error {
	reply, err := s.svc.Templates()
	return answer(w, reply, err)
}

func (s *Server) rebuildTemplate(w http.ResponseWriter, r *http.Request) error {
	var req api.RebuildTemplateRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.RebuildTemplate(r.Context(), req)
	return answer(w, reply, err)
}

func (s *Server) pruneTemplates(w http.ResponseWriter, _ *http.Request) error {
	reply, err := s.svc.PruneTemplates()
	return answer(w, reply, err)
}
