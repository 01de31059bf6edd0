package localapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

// frame is one stream frame as bytes.
func frame(kind proto.Kind, text string) []byte {
	var b bytes.Buffer
	_ = proto.WriteStreamFrame(&b, kind, []byte(text))
	return b.Bytes()
}

// FuzzRequest feeds what a client may send first on a stream, and as a body.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"command":"true","timeout_secs":1.5,"env":{"A":"b"}}`))
	f.Add([]byte(`{"argv":["a","b"],"pty":{"cols":80,"rows":24}}`))
	f.Add(frame(proto.KindData, `{"command":"true"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var req api.ExecRequest
		r := httptest.NewRequest(http.MethodPost, "/exec/x", bytes.NewReader(data))
		if err := decode(httptest.NewRecorder(), r, api.MaxBody, &req); err == nil {
			checkExec(t, req)
		} else if fault.HTTPStatus(err) >= 500 {
			t.Fatalf("bad input is our failure: %v", err)
		}
		text, err := readRequest(bytes.NewReader(data))
		if err != nil {
			if fault.HTTPStatus(err) >= 500 {
				t.Fatalf("bad input is our failure: %v", err)
			}
			return
		}
		req = api.ExecRequest{}
		if strict(text, &req) == nil {
			checkExec(t, req)
		}
	})
}

func checkExec(t *testing.T, req api.ExecRequest) {
	ask, err := execRequest(req)
	if err != nil && fault.HTTPStatus(err) != http.StatusBadRequest {
		t.Fatalf("bad input is our failure: %v", err)
	}
	if err == nil && (ask.Validate() != nil || ask.Exec.TimeoutMS < 0 || (req.TimeoutSecs > 0 && ask.Exec.TimeoutMS == 0)) {
		t.Fatalf("%+v becomes %+v", req, ask.Exec)
	}
}

// FuzzFromGuest feeds what a guest may send through its worker: output, files, lists.
func FuzzFromGuest(f *testing.F) {
	f.Add(append(frame(proto.KindStarted, `{"job":"j1"}`), frame(proto.KindExit, `{"code":1}`)...))
	f.Add(append(frame(proto.KindData, `{"path":"a","type":"dir"}`+"\n"), frame(proto.KindResult, `{"ok":true}`)...))
	f.Add(frame(proto.KindError, `{"code":"conflict","message":"no"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := collect(bytes.NewReader(data), false); err != nil && fault.Line(err) == "" {
			t.Fatal("an error without words")
		}
		w := httptest.NewRecorder()
		if err := lines(w, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		tr := &transfer{frames: proto.NewStreamReader(bytes.NewReader(data)), ctx: t.Context()}
		files, err := readList(tr)
		if err == nil && len(files) > maxListed {
			t.Fatalf("%d files", len(files))
		}
	})
}

// FuzzPath holds what becomes of a path of the API to what a worker takes.
func FuzzPath(f *testing.F) {
	f.Add("/etc/passwd")
	f.Add("a//b/../c")
	f.Add("///")
	f.Fuzz(func(t *testing.T, path string) {
		for _, op := range []proto.FileOp{proto.FileRead, proto.FileList} {
			if req, err := fileRequest(op, path); err == nil && req.Validate() != nil {
				t.Fatalf("%q becomes %+v", path, req)
			}
		}
	})
}
