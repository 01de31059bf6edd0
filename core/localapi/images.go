package localapi

import (
	"io"
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

func (s *Server) exportImage(w http.ResponseWriter, r *http.Request) error {
	return s.svc.ExportImage(r.PathValue("name"), func() io.Writer { //nolint:wrapcheck // a fault, or the answer is broken off
		w.Header().Set("Content-Type", raw)
		w.WriteHeader(http.StatusOK)
		return struct{ io.Writer }{w}
	})
}

func (s *Server) importImage(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.ImportImage(r.PathValue("name"), r.Body)
	return answer(w, reply, err)
}
