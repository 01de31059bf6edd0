package modeltap

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/budget"
)

// sdks is where .ci/deps puts the official SDKs for Node.
func sdks(t *testing.T) string {
	t.Helper()
	root := os.Getenv("CAPSEM_TEST_CACHE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "capsem-test")
	}
	dir := filepath.Join(root, "node-sdks")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "openai")); err != nil {
		t.Fatal("the SDKs are not there; .ci/deps test installs them: ", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run has an SDK call a model through the rig.
func (r *rig) run(t *testing.T, sdk, mode string) (out struct {
	OK, Status int
	Message    string
},
) {
	t.Helper()
	dir := sdks(t)
	cmd := exec.CommandContext(t.Context(), "node", "testdata/sdks.mjs", dir, sdk, r.proxy.URL, mode)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// apis is a provider of each kind: what it answers, and streams.
var apis = []struct {
	sdk, host, plain, stream, endless string
}{
	{
		"anthropic", anthropicHost,
		`{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":20}}`,
		anthropicAnswer(2, "toolu_1"), anthropicAnswer(3000, ""),
	},
	{
		"openai", openAIHost,
		`{"id":"c1","object":"chat.completion","model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}`,
		"data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n",
		strings.Repeat("data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Some words that take some room.\"}}]}\n\n", 3000),
	},
	{
		"responses", openAIHost,
		`{"id":"r1","object":"response","model":"gpt-5","status":"completed","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[]}]}],"usage":{"input_tokens":10,"output_tokens":20}}`,
		"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r1\",\"status\":\"completed\",\"model\":\"gpt-5\",\"usage\":{\"input_tokens\":10,\"output_tokens\":20}}}\n\n",
		strings.Repeat("event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Some words that take some room.\"}\n\n", 3000),
	},
	{
		"google", googleHost,
		`{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":20},"modelVersion":"gemini-2.5-pro"}`,
		"data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"Hi\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":20}}\r\n\r\n",
		strings.Repeat("data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"Some words that take some room.\"}]}}]}\r\n\r\n", 3000),
	},
}

// streams reports whether a request asks for a stream.
func streams(r *http.Request, body string) bool {
	return strings.Contains(body, `"stream":true`) || strings.Contains(r.URL.Path, ":stream")
}

func TestTheOfficialSDKsAreRefusedOnceAndDoNotTryAgain(t *testing.T) {
	for _, api := range apis {
		t.Run(api.sdk, func(t *testing.T) {
			sdks(t)
			r := newRig(t, api.host, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				p := provider{body: api.plain, encoding: "gzip", piece: 11}
				if req.Header.Get("X-Test-Stream") != "" {
					p = provider{contentType: "text/event-stream", body: api.stream, encoding: "br", piece: 7}
				}
				p.ServeHTTP(w, req)
			}))
			r.markStreams(t)
			r.limit(t, budget.Session, budget.Requests, 3)
			out := r.run(t, api.sdk, "budget")
			if out.OK != 3 || out.Status != http.StatusForbidden || !strings.Contains(out.Message, "budget") {
				t.Errorf("%+v", out)
			}
			if tried, asked := r.tried.Load(), r.asked.Load(); tried != 4 || asked != 3 {
				t.Errorf("the SDK tried %d times, the provider was asked %d times", tried, asked)
			}
			eventually(t, "three records", func() bool { return len(r.rows.all()) == 3 })
			for i, row := range r.rows.all() {
				if row.Stream != (i == 1) || row.Status != 200 || row.Model == "" || row.OutputTokens == 0 && i != 1 || row.CostUSD <= 0 {
					t.Errorf("%d: %+v", i, row)
				}
			}
			if used, held := r.used(t, budget.Requests); used != 3 || held != 0 {
				t.Error(used, held)
			}
		})
	}
}

func TestTheOfficialSDKsUnderstandThatAStreamWasCut(t *testing.T) {
	for _, api := range apis {
		t.Run(api.sdk, func(t *testing.T) {
			sdks(t)
			r := newRig(t, api.host, provider{contentType: "text/event-stream", body: api.endless, encoding: "gzip", piece: 500, hang: true})
			r.markStreams(t)
			r.limit(t, budget.Session, budget.Tokens, 4000)
			out := r.run(t, api.sdk, "cut")
			if out.OK != 0 || !strings.Contains(out.Message, "capsem: this answer was cut") {
				t.Errorf("%+v", out)
			}
			if n := r.tried.Load(); n != 1 {
				t.Errorf("the SDK tried %d times", n)
			}
		})
	}
}
