package localapi

import (
	"net/http"

	"capsem/core/api"
)

func (s *Server) fork(w http.ResponseWriter, r *http.Request) error {
	var req api.ForkRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.Fork(r.Context(), r.PathValue("id"), req)
	return answer(w, reply, err)
}

func (s *Server) images(w http.ResponseWriter, _ *http.Request) error {
	reply, err := s.svc.Images()
	return answer(w, reply, err)
}

func (s *Server) image(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Image(r.PathValue("name"))
	return answer(w, reply, err)
}

func (s *Server) deleteImage(w http.ResponseWriter, r *http.Request) error {
	return answer(w, api.Success{Success: true}, s.svc.DeleteImage(r.PathValue("name")))
}
