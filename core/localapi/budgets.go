package localapi

import (
	"net/http"

	"capsem/core/api"
)

func (s *Server) budgets(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Budgets(r.Context())
	return answer(w, reply, err)
}

func (s *Server) setBudget(w http.ResponseWriter, r *http.Request) error {
	var req api.BudgetRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return answer(w, api.Success{Success: true}, s.svc.SetBudget(req))
}

func (s *Server) resetBudget(w http.ResponseWriter, r *http.Request) error {
	var req api.BudgetResetRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return answer(w, api.Success{Success: true}, s.svc.ResetBudget(req))
}
