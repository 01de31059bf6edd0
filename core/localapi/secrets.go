package localapi

import (
	"net/http"

	"capsem/core/api"
)

// maxSecret bounds the body that stores a secret: a file of a sign-in has a few kilobytes.
const maxSecret = 64 << 10

func (s *Server) secretRoutes() []route {
	return []route{
		{method: "GET", path: "/secrets", summary: "Every stored secret, without its value", out: api.SecretsReply{}, run: s.secrets},
		{method: "PUT", path: "/secrets/{name}", summary: "Store a secret", in: api.SecretRequest{}, out: api.Secret{}, run: s.setSecret},
		{method: "DELETE", path: "/secrets/{name}", summary: "Remove a secret", out: api.Success{}, run: s.removeSecret},
		{method: "POST", path: "/secrets/{name}/test", summary: "Ask its provider whether a secret is good", out: api.SecretTest{}, run: s.testSecret},
	}
}

func (s *Server) secrets(w http.ResponseWriter, _ *http.Request) error {
	reply, err := s.svc.Secrets()
	return answer(w, reply, err)
}

func (s *Server) setSecret(w http.ResponseWriter, r *http.Request) error {
	var req api.SecretRequest
	if err := decode(w, r, maxSecret, &req); err != nil {
		return err
	}
	reply, err := s.svc.SetSecret(r.Context(), r.PathValue("name"), req)
	return answer(w, reply, err)
}

func (s *Server) removeSecret(w http.ResponseWriter, r *http.Request) error {
	return answer(w, api.Success{Success: true}, s.svc.RemoveSecret(r.Context(), r.PathValue("name")))
}

func (s *Server) testSecret(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.TestSecret(r.Context(), r.PathValue("name"))
	return answer(w, reply, err)
}
