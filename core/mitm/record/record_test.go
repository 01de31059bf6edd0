package record

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"capsem/core/ledger"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
	"capsem/core/proto"
)

type rows []ledger.NetEvent

func (r *rows) RecordNet(e ledger.NetEvent) { *r = append(*r, e) }

// pass sends a request and its answer through a modifier and ends it.
func pass(t *testing.T, m *Modifier, v policy.Verdict, answer string, end flow.End) {
	t.Helper()
	f := &flow.Flow{
		Host: "a.test", Port: 443, Type: "https", Began: time.Now(), Header: http.Header{"Accept": {"x"}},
		Process: &proto.ProcessClaim{PID: 3, Name: "curl", CommandLine: "curl -s", Parents: []string{"sh", "init"}},
	}
	req, err := http.NewRequestWithContext(flow.With(context.Background(), f), http.MethodPost, "https://a.test/p%2fq?k=v", strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ModifyRequest(req); err != nil {
		t.Fatal(err)
	}
	f.SetVerdict(v)
	_, _ = io.Copy(io.Discard, req.Body)
	_ = req.Body.Close()
	if answer != "" {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = io.WriteString(z, answer)
		_ = z.Close()
		want := packed.String()
		res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(&packed), Request: req}
		if err := m.ModifyResponse(res); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != want {
			t.Errorf("the body that passes is another: %v", err)
		}
		_ = res.Body.Close()
	}
	f.Finish(end)
	f.Finish(end)
}

func TestEachRequestHasOneRowWhenItHasEnded(t *testing.T) {
	allow := policy.Verdict{Effect: policy.Allow, RuleID: "r", Reason: "why"}
	for _, c := range []struct {
		name     string
		verdict  policy.Verdict
		answer   string
		end      flow.End
		decision string
	}{
		{"allowed", allow, "answer", flow.End{Status: 200, Sent: 8, Received: 30, At: time.Now().Add(time.Second)}, "allowed"},
		{"cut short", allow, "answer", flow.End{Status: 200, Err: errors.New("cut")}, "error"},
		{"denied", policy.Verdict{Effect: policy.Deny, RuleID: "r"}, "", flow.End{Status: 403}, "denied"},
		{"denied and cut", policy.Verdict{Effect: policy.Deny}, "", flow.End{Err: errors.New("cut")}, "denied"},
		{"not judged", policy.Verdict{}, "", flow.End{}, "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got rows
			pass(t, New(&got, 0), c.verdict, c.answer, c.end)
			if len(got) != 1 {
				t.Fatalf("%d rows", len(got))
			}
			e := got[0]
			if e.Decision != c.decision || e.Domain != "a.test" || e.Path != "/p%2fq" || e.Query != "k=v" || e.Method != http.MethodPost || e.Status != c.end.Status ||
				e.Process.Parents != "sh < init" || e.RequestBody != "" || e.ResponseBody != "" || e.Duration < 0 || e.Sent != c.end.Sent {
				t.Errorf("%+v", e)
			}
			if (e.ResponseHeaders != nil) != (c.answer != "") || e.RequestHeaders.Get("Accept") != "x" {
				t.Errorf("headers %v %v", e.RequestHeaders, e.ResponseHeaders)
			}
		})
	}
}

func TestBeginningsOfBodiesAreKeptDecodedOnlyWhereThatIsWanted(t *testing.T) {
	var got rows
	pass(t, New(&got, 10), policy.Verdict{Effect: policy.Allow}, "the answer is long", flow.End{Status: 200})
	if got[0].RequestBody != "question" || got[0].ResponseBody != "the answer" {
		t.Errorf("%q %q", got[0].RequestBody, got[0].ResponseBody)
	}
}
