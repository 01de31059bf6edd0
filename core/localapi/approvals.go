package localapi

import (
	"encoding/json"
	"net/http"

	"capsem/core/api"
)

func (s *Server) approvals(w http.ResponseWriter, r *http.Request) error {
	watch, err := boolean(r, "watch")
	if err != nil {
		return err
	}
	reply, changed := s.svc.Approvals()
	if !watch {
		return answer(w, reply, nil)
	}
	w.Header().Set("Content-Type", ndjson)
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	for {
		if out.Encode(reply) != nil || flush.Flush() != nil {
			return nil // the client left
		}
		select {
		case <-changed:
			reply, changed = s.svc.Approvals()
		case <-r.Context().Done():
			return nil
		}
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) error {
	var req api.AnswerRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	if req.By == "" {
		req.By = "api"
	}
	reply, err := s.svc.Answer(r.Context(), r.PathValue("question"), req)
	return answer(w, reply, err)
}
