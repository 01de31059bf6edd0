package localapi

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/export"
	"capsem/core/fault"
	"capsem/core/ledger"
)

func (s *Server) recordRoutes() []route {
	return []route{
		{
			method: "GET", path: "/sessions", summary: "The newest sessions: lives of VMs that are there or gone", out: api.SessionsReply{}, run: s.sessions,
			query: []param{{"status", "string", "running, stopped, crashed or terminated", false}, {"limit", "integer", "at most so many; 100", false}},
		},
		{
			method: "GET", path: "/history/{id}", summary: "What happened in a session, newest first", out: api.HistoryPage{}, run: s.history,
			query: []param{
				{"kind", "string", "only these, with commas between: " + strings.Join(ledger.Kinds(), ", "), false},
				{"search", "string", "only what contains this text", false},
				{"decision", "string", "allowed, denied or error", false},
				{"since", "string", "from this time on (RFC 3339)", false},
				{"until", "string", "before this time (RFC 3339)", false},
				{"after", "string", "the next of the page before", false},
				{"limit", "integer", "at most so many; 100", false},
			},
		},
		{method: "GET", path: "/history/{id}/processes", summary: "The programs started in a session", out: api.ProcessesReply{}, run: s.processes},
		{
			method: "POST", path: "/inspect/{id}", summary: "One reading SQL statement about a session's record; _main is the index of all",
			in: api.InspectRequest{}, out: api.InspectReply{}, run: s.inspect,
		},
		{
			method: "GET", path: "/export/{id}", summary: "A session's record in a format of other tools", out: raw, run: s.export,
			query: []param{{"format", "string", strings.Join(export.Formats(), ", "), true}, {"follow", "boolean", "go on as it grows, while its VM runs", false}},
		},
		{method: "GET", path: "/verify/{id}", summary: "Whether a session's record is as it was written", out: api.VerifyReport{}, run: s.verify},
		{method: "GET", path: "/stats", summary: "All sessions summed up", out: api.StatsReply{}, run: s.stats},
		{method: "GET", path: "/policy/suggest/{id}", summary: "Rules that would have allowed what was refused", out: api.SuggestReply{}, run: s.suggestPolicy},
		{method: "POST", path: "/policy/rules", summary: "Add rules to the owner's policy", in: api.PolicyRulesRequest{}, out: api.Success{}, run: s.addPolicyRules},
		{
			method: "GET", path: "/approvals", summary: "What waits for the owner; with watch as JSON lines, at every change", out: api.ApprovalsReply{},
			query: []param{{"watch", "boolean", "go on", false}}, run: s.approvals,
		},
		{method: "POST", path: "/approvals/{question}", summary: "Answer a question", in: api.AnswerRequest{}, out: api.AnswerReply{}, run: s.answer},
		{method: "GET", path: "/budgets", summary: "What VMs may spend, and have spent", out: api.BudgetsReply{}, run: s.budgets},
		{method: "POST", path: "/budgets", summary: "Set or remove a limit", in: api.BudgetRequest{}, out: api.Success{}, run: s.setBudget},
		{method: "POST", path: "/budgets/reset", summary: "Begin to count anew", in: api.BudgetResetRequest{}, out: api.Success{}, run: s.resetBudget},
		{method: "GET", path: "/stats/{id}", summary: "One session summed up", out: api.RecordTotals{}, run: s.sessionStats},
	}
}

func (s *Server) sessions(w http.ResponseWriter, r *http.Request) error {
	limit, err := number(r, "limit", 1, ledger.MaxPage)
	if err != nil {
		return err
	}
	status := r.URL.Query().Get("status")
	if !slices.Contains([]string{"", ledger.Running, ledger.Stopped, ledger.Crashed, ledger.Terminated}, status) {
		return fault.New(fault.Invalid, "status is %.40q; it must be running, stopped, crashed or terminated", status)
	}
	reply, err := s.svc.Sessions(r.Context(), status, limit)
	return answer(w, reply, err)
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	f := ledger.Filter{Search: q.Get("search"), Decision: q.Get("decision"), After: q.Get("after")}
	if kinds := q.Get("kind"); kinds != "" {
		f.Kinds = strings.Split(kinds, ",")
	}
	var err error
	if f.Limit, err = number(r, "limit", 1, ledger.MaxPage); err != nil {
		return err
	}
	if f.Since, err = moment(r, "since"); err != nil {
		return err
	}
	if f.Until, err = moment(r, "until"); err != nil {
		return err
	}
	reply, err := s.svc.History(r.Context(), r.PathValue("id"), f)
	return answer(w, reply, err)
}

// moment reads a parameter that is a time, zero when absent.
func moment(r *http.Request, name string) (time.Time, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return t, fault.New(fault.Invalid, "%s is %.60q; it must be a time such as 2026-01-31T12:00:00Z", name, value)
	}
	return t, nil
}

func (s *Server) processes(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Processes(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) inspect(w http.ResponseWriter, r *http.Request) error {
	var req api.InspectRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.Inspect(r.Context(), r.PathValue("id"), req.SQL)
	return answer(w, reply, err)
}

// export streams a record. What fails on the way breaks the answer off, so that nobody takes a part for the whole.
func (s *Server) export(w http.ResponseWriter, r *http.Request) error {
	format, begun := r.URL.Query().Get("format"), false
	follow, err := boolean(r, "follow")
	if err != nil {
		return err
	}
	err = s.svc.Export(r.Context(), r.PathValue("id"), format, follow, func() (io.Writer, func() error) {
		begun = true
		w.Header().Set("Content-Type", export.MediaType(format))
		w.WriteHeader(http.StatusOK)
		return w, http.NewResponseController(w).Flush
	})
	if err != nil && begun {
		panic(http.ErrAbortHandler)
	}
	return err //nolint:wrapcheck // a fault
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Verify(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Stats(r.Context())
	return answer(w, reply, err)
}

func (s *Server) sessionStats(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.SessionStats(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) suggestPolicy(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.SuggestPolicy(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) addPolicyRules(w http.ResponseWriter, r *http.Request) error {
	var req api.PolicyRulesRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return answer(w, api.Success{Success: true}, s.svc.AddPolicyRules(&req))
}
