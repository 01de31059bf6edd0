package localapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
)

// host is the only Host that a request may name: whoever comes from a browser names another.
const host = "localhost"

// checkOrigin refuses whatever a browser may have been made to send.
func checkOrigin(r *http.Request) error {
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
		if _, ok := r.Header[name]; ok {
			return fault.New(fault.Forbidden, "requests with the header %s are refused: they come from a browser", name)
		}
	}
	if r.Host != host {
		return fault.New(fault.Forbidden, "the Host of a request must be %s, not %.80q", host, r.Host)
	}
	return nil
}

// handler runs a route, answers with its error, and survives its panics.
func (s *Server) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		tw := &tracked{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				s.panicked(tw, r, p)
			}
			if r.Method != http.MethodGet {
				s.log.Info("request", "method", r.Method, "route", rt.path, "id", r.PathValue("id"), "status", tw.status, "ms", time.Since(start).Milliseconds())
			}
		}()
		if err := rt.run(tw, r); err != nil {
			s.refuse(tw, r, err)
		}
	})
}

// tracked remembers whether and how a request was answered.
type tracked struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (t *tracked) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write answers 200 where nothing else was said.
func (t *tracked) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	return t.ResponseWriter.Write(p) //nolint:wrapcheck // an io.Writer hands errors through
}

// Unwrap lets http.ResponseController find the connection.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// panicked answers 500 with a number that the log has too. http.ErrAbortHandler is no accident: it breaks the connection off, so
// that a client does not take half an answer for a whole one.
func (s *Server) panicked(w *tracked, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	id := rand.Text()[:8]
	s.log.Error("panic", "incident", id, "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	s.refuse(w, r, fault.New(fault.Internal, "capsem has a defect (incident %s)", id).WithHint("see capsem's run/service.log, and report it"))
}

// refuse answers with an error. Where the answer has begun, all that can be done is to break it off.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if t, ok := w.(*tracked); ok && t.status != 0 {
		panic(http.ErrAbortHandler)
	}
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		err = fault.New(fault.Unavailable, "the request was given up")
	}
	status := fault.HTTPStatus(err)
	code, message, hint := fault.Public(err)
	if status >= http.StatusInternalServerError {
		s.log.Warn("failed", "method", r.Method, "path", r.URL.Path, "code", code, "error", err)
	}
	writeJSON(w, status, api.ErrorBody{Error: api.ErrorInfo{Code: string(code), Message: message, Hint: hint}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // a type of ours that cannot be encoded is a defect
		panic(fmt.Errorf("encode answer: %w", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that left needs no answer
}

// answer writes the result of a call, or returns its error.
func answer(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// decode reads the JSON body of a request strictly.
func decode(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the value")
		}
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.New(fault.TooLarge, "the request is larger than %d bytes", limit).WithHint("send large content through /files/{id}/content or stdin")
	}
	return malformed(err)
}

func malformed(err error) error {
	text := strings.TrimPrefix(err.Error(), "json: ")
	if errors.Is(err, io.EOF) {
		text = "it is empty"
	}
	return fault.Wrap(err, fault.Invalid, "the request's JSON is not as it should be: %s", text).WithHint("see /openapi.json")
}

// unknown answers what is no route, or one by another method.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) error {
	var allowed []string
	for _, rt := range s.routes {
		probe := r.Clone(r.Context())
		probe.Method = rt.method
		if _, pattern := s.mux.Handler(probe); pattern == rt.method+" "+rt.path {
			allowed = append(allowed, rt.method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeJSON(w, http.StatusMethodNotAllowed, api.ErrorBody{Error: api.ErrorInfo{
			Code: string(fault.Invalid), Message: "this route takes " + strings.Join(allowed, ", ") + ", not " + r.Method, Hint: "see /openapi.json",
		}})
		return nil
	}
	return fault.New(fault.NotFound, "there is no route %.200s", r.URL.Path).WithHint("see /openapi.json; the service may be older than the client: capsem version")
}
