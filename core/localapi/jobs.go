package localapi

import (
	"net/http"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

func (s *Server) jobs(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.Call(r.Context(), r.PathValue("id"), proto.WorkerRequest{Op: proto.OpJobs})
	if reply.Jobs == nil {
		reply.Jobs = []proto.Job{}
	}
	return answer(w, api.JobsReply{Jobs: reply.Jobs}, err)
}

func (s *Server) job(w http.ResponseWriter, r *http.Request) error {
	wait, err := boolean(r, "wait")
	if err != nil {
		return err
	}
	op := proto.OpJob
	if wait {
		op = proto.OpWaitJob
	}
	reply, err := s.askJob(r, op)
	if err != nil {
		return err
	}
	if len(reply.Jobs) != 1 {
		return fault.New(fault.NotFound, "there is no job %.80q in VM %s", r.PathValue("job"), r.PathValue("id")).WithHint("see /jobs/{id}")
	}
	return answer(w, reply.Jobs[0], nil)
}

func (s *Server) cancelJob(w http.ResponseWriter, r *http.Request) error {
	_, err := s.askJob(r, proto.OpCancelJob)
	return answer(w, api.Success{Success: true}, err)
}

func (s *Server) askJob(r *http.Request, op proto.WorkerOp) (proto.WorkerReply, error) {
	req := proto.WorkerRequest{Op: op, Job: r.PathValue("job")}
	if err := req.Validate(); err != nil {
		return proto.WorkerReply{}, fault.New(fault.Invalid, "%s", err)
	}
	return s.svc.Call(r.Context(), r.PathValue("id"), req) //nolint:wrapcheck // a fault
}
