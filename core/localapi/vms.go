package localapi

import (
	"io"
	"net/http"
	"strconv"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/service"
)

func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, service.Version(), nil)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, s.svc.Status(), nil)
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(s.document)
	return err //nolint:wrapcheck // the client left
}

func (s *Server) provision(w http.ResponseWriter, r *http.Request) error {
	var req api.ProvisionRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.Provision(r.Context(), req)
	return answer(w, reply, err)
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, s.svc.List(), nil)
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.svc.Info(r.PathValue("id"))
	return answer(w, info, err)
}

func (s *Server) stop(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Stop(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) restart(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Restart(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	return answer(w, api.Success{Success: true}, s.svc.Delete(r.Context(), r.PathValue("id")))
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request) error {
	cold, err := boolean(r, "cold")
	if err != nil {
		return err
	}
	reply, err := s.svc.Resume(r.Context(), r.PathValue("name"), cold)
	return answer(w, reply, err)
}

func (s *Server) suspend(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Suspend(r.Context(), r.PathValue("id"))
	return answer(w, reply, err)
}

func (s *Server) persist(w http.ResponseWriter, r *http.Request) error {
	var req api.PersistRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return answer(w, api.Success{Success: true}, s.svc.Persist(r.Context(), r.PathValue("id"), req.Name))
}

func (s *Server) purge(w http.ResponseWriter, r *http.Request) error {
	var req api.PurgeRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.Purge(r.Context(), req.All)
	return answer(w, reply, err)
}

func (s *Server) terminal(w http.ResponseWriter, r *http.Request) error {
	path, err := s.svc.Terminal(r.Context(), r.PathValue("id"))
	return answer(w, api.TerminalReply{UDSPath: path}, err)
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	lines, err := number(r, "tail", 0, 1<<20)
	if err != nil {
		return err
	}
	follow, err := boolean(r, "follow")
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if !follow {
		reply, err := s.svc.Logs(id, lines)
		return answer(w, reply, err)
	}
	w.Header().Set("Content-Type", plain+"; charset=utf-8")
	return s.svc.FollowLogs(r.Context(), id, lines, w, http.NewResponseController(w).Flush) //nolint:wrapcheck // a fault, or the client left
}

func (s *Server) serviceLogs(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", plain+"; charset=utf-8")
	_, err := io.WriteString(w, s.svc.ServiceLogs())
	return err //nolint:wrapcheck // the client left
}

func (s *Server) stopService(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Connection", "close")
	writeJSON(w, http.StatusOK, api.ShutdownReply{Success: true, Attached: int(s.attached.Load())})
	_ = http.NewResponseController(w).Flush() // a client that left needs no answer
	s.shutdown()
	return nil
}

// number reads a parameter that is a number, 0 when absent.
func number(r *http.Request, name string, least, most int) (int, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fault.New(fault.Invalid, "%s is %.40q; it must be a number from %d to %d", name, value, least, most)
	}
	return n, nil
}

// boolean reads a parameter that is 1 or 0, true or false; absent means no.
func boolean(r *http.Request, name string) (bool, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(value)
	if err != nil {
		return false, fault.New(fault.Invalid, "%s is %.40q; it must be 1 or 0", name, value)
	}
	return yes, nil
}
