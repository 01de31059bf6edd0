package modeltap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"capsem/core/budget"
	"capsem/core/mitm/flow"
)

const anthropicHost, openAIHost, googleHost = "api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com"

const question = `{"model":"claude-sonnet-4-5","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hi"}]}`

// anthropicAnswer is a stream of so many words, which it says were 10 tokens each.
func anthropicAnswer(words int, tool string) string {
	var b strings.Builder
	event := func(name, data string) { fmt.Fprintf(&b, "event: %s\ndata: {\"type\":\"%s\"%s}\n\n", name, name, data) }
	event("message_start", `,"message":{"id":"msg_1","model":"claude-sonnet-4-5-20250929","usage":{"input_tokens":1000,"cache_read_input_tokens":2000,"output_tokens":1}}`)
	event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)
	for range words {
		event("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":"a word of text that is forty bytes long. "}`)
	}
	event("content_block_stop", `,"index":0`)
	stop := "end_turn"
	if tool != "" {
		event("content_block_start", `,"index":1,"content_block":{"type":"tool_use","id":"`+tool+`","name":"fs__ls","input":{}}`)
		event("content_block_stop", `,"index":1`)
		stop = "tool_use"
	}
	event("message_delta", fmt.Sprintf(`,"delta":{"stop_reason":%q},"usage":{"output_tokens":%d}`, stop, 10*words))
	event("message_stop", "")
	return b.String()
}

func TestACallIsRecordedHoweverItsAnswerComes(t *testing.T) {
	for _, encoding := range []string{"", "gzip", "br", "zstd"} {
		for _, piece := range []int{1, 7, 1000, 0} {
			t.Run(fmt.Sprintf("%s %d", encoding, piece), func(t *testing.T) {
				text := anthropicAnswer(3, "toolu_1")
				r := newRig(t, anthropicHost, provider{contentType: "text/event-stream", body: text, encoding: encoding, piece: piece})
				status, got, header, err := r.post(t, "/v1/messages", question, "Accept-Encoding", "gzip, br, zstd")
				if err != nil || status != 200 || got != text || header.Get("Content-Encoding") != "" {
					t.Fatalf("%d %v %v\n%s", status, err, header, got)
				}
				eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
				row := r.rows.all()[0]
				if row.Provider != "anthropic" || row.Model != "claude-sonnet-4-5-20250929" || !row.Stream || row.Status != 200 || row.StopReason != "tool_use" ||
					row.InputTokens != 1000 || row.OutputTokens != 30 || row.Messages != 1 || row.MessageID != "msg_1" || row.TraceID == "" ||
					len(row.Calls) != 1 || row.Calls[0].Origin != "mcp" || row.RequestBytes != int64(len(question)) || row.ResponseBytes != int64(len(text)) {
					t.Errorf("%+v", row)
				}
				// 1000 at $3, 2000 at $0.30, 30 at $15 a million.
				if row.CostUSD != 0.00405 || !strings.Contains(row.Usage, `"cost_nano_usd":4050000`) || !strings.Contains(row.Usage, `"first_token_ms":`) {
					t.Error(row.CostUSD, row.Usage)
				}
				if used, held := r.used(t, budget.Money); used != 4050000 || held != 0 {
					t.Error(used, held)
				}
			})
		}
	}
}

func TestTurnsOfOneTaskHaveOneTrace(t *testing.T) {
	tool := make(chan string, 10)
	r := newRig(t, anthropicHost, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		provider{contentType: "text/event-stream", body: anthropicAnswer(1, <-tool)}.ServeHTTP(w, req)
	}))
	result := func(id string) string {
		return `{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[{"role":"user","content":"` + strings.Repeat("long ", 100_000) + `"},{"role":"assistant","content":[{"type":"tool_use","id":"` + id + `","name":"ls","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"` + id + `","content":"out"}]}]}`
	}
	for _, step := range [][2]string{{question, "t1"}, {question, "u1"}, {result("t1"), "t2"}, {result("u1"), ""}, {result("t2"), ""}, {result("unknown"), ""}} {
		tool <- step[1]
		if status, text, _, err := r.post(t, "/v1/messages", step[0]); status != 200 || err != nil {
			t.Fatal(status, text, err)
		}
	}
	eventually(t, "six records", func() bool { return len(r.rows.all()) == 6 })
	rows := r.rows.all()
	if rows[0].TraceID != rows[2].TraceID || rows[2].TraceID != rows[4].TraceID || rows[1].TraceID != rows[3].TraceID || rows[0].TraceID == rows[1].TraceID || rows[5].TraceID == rows[0].TraceID {
		for i, row := range rows {
			t.Error(i, row.TraceID)
		}
	}
	if len(rows[2].Results) != 1 || rows[2].Results[0].CallID != "t1" || rows[2].Results[0].Content != "out" {
		t.Errorf("%+v", rows[2].Results)
	}
}

func TestAHugeCallCannotSlipThrough(t *testing.T) {
	r := newRig(t, anthropicHost, provider{body: "{}"})
	r.limit(t, budget.Session, budget.Money, 1_000_000_000) // a dollar
	for name, body := range map[string]string{
		"a long answer": `{"model":"claude-sonnet-4-5","max_tokens":70000,"messages":[{"role":"user","content":"hi"}]}`,
		"a long prompt": `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":"` + strings.Repeat("x", 900_000) + `"}]}`,
		"behind a long prompt that is sent in pieces": `{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"` + strings.Repeat("x", 5<<20) + `"}],"max_tokens":1}`,
	} {
		status, text, header, err := r.post(t, "/v1/messages", body)
		if err != nil || status != 403 || header.Get("X-Should-Retry") != "false" || !strings.Contains(text, `"permission_error"`) || !strings.Contains(text, "budget") {
			t.Errorf("%s: %d %v %v %s", name, status, err, header, text)
		}
	}
	if n := r.asked.Load(); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
	if used, held := r.used(t, budget.Money); used != 0 || held != 0 {
		t.Error(used, held)
	}
	if status, text, _, err := r.post(t, "/v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":60000,"messages":[{"role":"user","content":"hi"}]}`); status != 200 || err != nil {
		t.Error(status, text, err)
	}
	if len(r.rows.all()) > 1 || !strings.Contains(r.rows.events(), "budget-refused") {
		t.Error(r.rows.events())
	}
}

func TestALongRequestArrivesWhole(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	r := newRig(t, anthropicHost, provider{body: "{}"})
	long := `{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"` + strings.Repeat("0123456789", 700_000) + `"}],"max_tokens":1}`
	inner := r.proxy.Config.Handler
	r.proxy.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var b bytes.Buffer
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(req.Body, &b), req.Body}
		inner.ServeHTTP(w, req)
		mu.Lock()
		got = b.Bytes()
		mu.Unlock()
	})
	if status, text, _, err := r.post(t, "/v1/messages", long); status != 200 || err != nil {
		t.Fatal(status, text, err)
	}
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	mu.Lock()
	defer mu.Unlock()
	if row := r.rows.all()[0]; string(got) != long || r.asked.Load() != 1 || row.RequestBytes != int64(len(long)) || row.Model != "claude-sonnet-4-5" {
		t.Error(len(got), row.RequestBytes, row.Model)
	}
}

func TestACompressedRequestIsReadToo(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, openAIHost, provider{body: `{"id":"resp_1","model":"gpt-5","usage":{"input_tokens":10,"output_tokens":20}}`})
	body := z.EncodeAll([]byte(`{"model":"gpt-5","input":"hi","max_output_tokens":10}`), nil)
	if status, text, _, err := r.post(t, "/v1/responses", string(body), "Content-Encoding", "zstd"); status != 200 || err != nil {
		t.Fatal(status, text, err)
	}
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	if row := r.rows.all()[0]; row.Messages != 1 || !strings.Contains(row.Usage, `"max_output":10`) || row.CostUSD != 0.0002125 { // 10 at 1.25, 20 at 10
		t.Errorf("%+v", row)
	}
	// What cannot be read is refused where money is limited: nobody knows whose prices hold.
	r.limit(t, budget.Day, budget.Money, 1)
	if status, text, _, err := r.post(t, "/v1/responses", "\x28\xb5\x2f\xfdgarbage", "Content-Encoding", "zstd"); status != 403 || err != nil {
		t.Error(status, text, err)
	}
}

func TestUnknownPricesAreUnknownCosts(t *testing.T) {
	r := newRig(t, openAIHost, provider{body: `{"model":"gpt-99","usage":{"prompt_tokens":10,"completion_tokens":20}}`})
	ask := `{"model":"gpt-99","messages":[{"role":"user","content":"x"}]}`
	if status, text, _, err := r.post(t, "/v1/chat/completions", ask); status != 200 || err != nil {
		t.Fatal(status, text, err)
	}
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	if row := r.rows.all()[0]; !math.IsNaN(row.CostUSD) || row.OutputTokens != 20 || !strings.Contains(row.Usage, `"cost_nano_usd":null`) {
		t.Errorf("%+v", row)
	}
	r.limit(t, budget.Session, budget.Money, 1_000_000_000_000)
	for _, path := range []string{"/v1/chat/completions", "/v1/images/generations"} {
		status, text, _, err := r.post(t, path, ask)
		if status != 403 || err != nil || !strings.Contains(text, "not known") || !strings.Contains(text, `"permission_error"`) {
			t.Error(path, status, text, err)
		}
	}
	if status, _, _, err := r.post(t, "/v1/files", "x"); status != 200 || err != nil {
		t.Error("what costs nothing passes", status, err)
	}
}

func TestAStreamThatPassesTheLimitIsCutWithAnEnd(t *testing.T) {
	word := strings.Repeat("x", 400)
	chat := strings.Repeat("data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""+word+"\"}}]}\n\n", 200) + "data: [DONE]\n\n"
	responses := strings.Repeat("event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\""+word+"\"}\n\n", 200)
	google := strings.Repeat("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\""+word+"\"}]}}]}\r\n\r\n", 200)
	array := "[" + strings.TrimSuffix(strings.Repeat("{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\""+word+"\"}]}}]},\n", 200), ",\n") + "]"
	ollama := strings.Repeat("{\"message\":{\"content\":\""+word+"\"},\"done\":false}\n", 200)
	for _, test := range []struct {
		name, host, path, ask, contentType, body, end string
	}{
		{"anthropic", anthropicHost, "/v1/messages", strings.Replace(question, `"max_tokens":100,`, "", 1), "text/event-stream", anthropicAnswer(2000, ""), "event: error\ndata: {\"error\":{\"message\":\"capsem"},
		{"openai chat", openAIHost, "/v1/chat/completions", `{"model":"gpt-5","stream":true,"messages":[{"role":"user","content":"x"}]}`, "text/event-stream", chat, "\n\ndata: [DONE]\n\n"},
		{"openai responses", openAIHost, "/v1/responses", `{"model":"gpt-5","stream":true,"input":"x"}`, "text/event-stream", responses, "event: error\ndata: {\"code\":\"capsem_budget\""},
		{"google", googleHost, "/v1beta/models/gemini-2.5-pro:streamGenerateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`, "text/event-stream", google, "data: {\"error\":{\"code\":403"},
		{"google, an array", googleHost, "/v1beta/models/gemini-2.5-pro:streamGenerateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`, "application/json", array, ",\n{\"error\":{\"code\":403"},
		{"ollama", "ollama.local", "/api/chat", `{"model":"llama","messages":[{"role":"user","content":"x"}]}`, "application/x-ndjson", ollama, "}\n{\"error\":\"capsem"},
	} {
		for _, encoding := range []string{"", "gzip"} {
			for _, piece := range []int{13, 0} {
				t.Run(fmt.Sprintf("%s %s %d", test.name, encoding, piece), func(t *testing.T) {
					r := newRig(t, test.host, provider{contentType: test.contentType, body: test.body, encoding: encoding, piece: piece, hang: true})
					r.limit(t, budget.Session, budget.Tokens, 5000)
					status, got, _, err := r.post(t, test.path, test.ask)
					if status != 200 || err != nil || !strings.Contains(got, test.end) || len(got) > 90_000 {
						t.Fatalf("%d %v %d bytes, ends with\n%s", status, err, len(got), got[max(0, len(got)-400):])
					}
					eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
					row := r.rows.all()[0]
					used, held := r.used(t, budget.Tokens)
					if !strings.Contains(row.Usage, "cut by capsem") || used > 5000+smallRead/4 || used < 3500 || held != 0 || !strings.Contains(r.rows.events(), "budget-cut") {
						t.Error(used, held, row.Usage, r.rows.events())
					}
					if status, _, _, err := r.post(t, test.path, test.ask); status != 403 || err != nil {
						t.Error("the next one:", status, err)
					}
				})
			}
		}
	}
}

func TestCallsAtOnceCannotOverspendTogether(t *testing.T) {
	r := newRig(t, openAIHost, provider{body: `{"model":"gpt-5","usage":{"prompt_tokens":10,"completion_tokens":100}}`})
	r.limit(t, budget.Session, budget.Tokens, 1000)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]int{}
	for range 40 {
		wg.Go(func() {
			status, _, _, err := r.post(t, "/v1/chat/completions", `{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"x"}]}`)
			mu.Lock()
			defer mu.Unlock()
			if seen[status]++; err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	used, held := r.used(t, budget.Tokens)
	if used > 1000 || held != 0 || seen[200] == 0 || seen[403] == 0 || seen[200]+seen[403] != 40 || used != int64(110*seen[200]) {
		t.Error(used, held, seen)
	}
}

func TestBytesAreLimitedForEverything(t *testing.T) {
	r := newRig(t, "files.example.com", provider{contentType: "application/octet-stream", body: strings.Repeat("x", 1<<20), piece: 10_000})
	r.limit(t, budget.Session, budget.Bytes, 500_000)
	if _, got, _, err := r.post(t, "/big", "x"); err == nil || len(got) > 500_000 {
		t.Error(len(got), err)
	}
	if status, text, _, err := r.post(t, "/big", strings.Repeat("y", 400_000)); status != 403 || err != nil || !strings.Contains(text, "budget") {
		t.Error(status, text, err)
	}
	if used, _ := r.used(t, budget.Bytes); used < 400_000 || used > 600_000 {
		t.Error(used)
	}
	if len(r.rows.all()) != 0 {
		t.Error("that was no model")
	}
}

func TestErrorsAndWhatIsGivenUpCostNothingOrTheEstimate(t *testing.T) {
	r := newRig(t, anthropicHost, provider{status: 529, body: `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`})
	if status, _, _, err := r.post(t, "/v1/messages", question); status != 529 || err != nil {
		t.Fatal(status, err)
	}
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	if row := r.rows.all()[0]; row.CostUSD != 0 || !strings.Contains(row.Usage, "overloaded_error: Overloaded") || row.Status != 529 {
		t.Errorf("%+v", row)
	}
	if used, held := r.used(t, budget.Money); used != 0 || held != 0 {
		t.Error(used, held)
	}

	started := make(chan struct{}, 1)
	r = newRig(t, anthropicHost, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		started <- struct{}{}
		<-req.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.proxy.URL+"/v1/messages", strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			t.Error("an answer came")
		}
	}()
	<-started
	cancel()
	<-done
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	if used, held := r.used(t, budget.Money); used < 1_500_000 || held != 0 { // 100 tokens at $15 a million, and the prompt
		t.Error("the provider may ask for all of it:", used, held)
	}
}

func TestAHostThatDoesNotCountIsNotBelieved(t *testing.T) {
	long := strings.Repeat("word ", 20_000)
	for name, test := range map[string]struct {
		prompt, text, usage string
		input, output       int64
		lies                bool
	}{
		"honest":           {"hi", "hello", `{"prompt_tokens":9,"completion_tokens":2}`, 9, 2, false},
		"honest and long":  {long, long, `{"prompt_tokens":20010,"completion_tokens":20001}`, 20010, 20001, false},
		"no output":        {"hi", long, `{"prompt_tokens":9,"completion_tokens":0}`, 9, 25_000, true},
		"one token":        {"hi", long, `{"prompt_tokens":9,"completion_tokens":1}`, 9, 25_000, true},
		"no input":         {long, "hello", `{"prompt_tokens":0,"completion_tokens":2}`, 25_000, 2, true},
		"more than it can": {"hi", "hello", `{"prompt_tokens":-5,"completion_tokens":99999999999}`, 0, 0, false}, // is no number; see model
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, openAIHost, provider{body: `{"model":"gpt-5","choices":[{"message":{"content":"` + test.text + `"}}],"usage":` + test.usage + `}`})
			r.limit(t, budget.Session, budget.Tokens, 1<<40)
			if status, text, _, err := r.post(t, "/v1/chat/completions", `{"model":"gpt-5","messages":[{"role":"user","content":"`+test.prompt+`"}]}`); status != 200 || err != nil {
				t.Fatal(status, text, err)
			}
			eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
			used, _ := r.used(t, budget.Tokens)
			row := r.rows.all()[0]
			if want := test.input + test.output; name != "more than it can" && (used < want*9/10 || used > want*2) || strings.Contains(row.Usage, "fewer tokens") != test.lies {
				t.Errorf("%d tokens are counted, not about %d: %s", used, want, row.Usage)
			}
		})
	}
}

func TestACompressedAnswerThatBreaksOffIsNoWholeOne(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, anthropicAnswer(300, ""))
	_ = z.Close()
	for name, body := range map[string]string{
		"truncated": packed.String()[:packed.Len()/2], "garbage within": packed.String()[:packed.Len()/2] + strings.Repeat("x", 200), "no gzip at all": "event: message_start\n\n",
	} {
		r := newRig(t, anthropicHost, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, body)
		}))
		if _, got, _, err := r.post(t, "/v1/messages", question); err == nil {
			t.Errorf("%s: it is taken for whole: %.300s", name, got)
		}
		eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
		if row := r.rows.all()[0]; !strings.Contains(row.Usage, `"cut":"`) {
			t.Errorf("%s: %+v", name, row)
		}
		if _, held := r.used(t, budget.Money); held != 0 {
			t.Errorf("%s: %d are held", name, held)
		}
	}
}

func TestAnAnswerThatIsCutShortIsRecordedAsFarAsItCame(t *testing.T) {
	text := anthropicAnswer(30, "")
	r := newRig(t, anthropicHost, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		provider{contentType: "text/event-stream", body: text[:len(text)-400]}.ServeHTTP(w, req)
		panic(http.ErrAbortHandler)
	}))
	if _, got, _, err := r.post(t, "/v1/messages", question); err == nil || !strings.HasPrefix(text, got) {
		t.Fatal(err)
	}
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	if row := r.rows.all()[0]; row.InputTokens != 1000 || row.OutputTokens < 200 || !strings.Contains(row.Usage, `"cut":"`) || !strings.Contains(row.Usage, `"estimated":true`) {
		t.Errorf("%+v", row)
	}
}

func TestTheOneWhoAnsweredIsPaid(t *testing.T) {
	r := newRig(t, openAIHost, provider{body: `{"model":"gpt-4o-2024-08-06","usage":{"prompt_tokens":10,"completion_tokens":20}}`})
	if status, text, _, err := r.post(t, "/v1/chat/completions", `{"model":"gpt-5-nano","messages":[{"role":"user","content":"x"}]}`); status != 200 || err != nil {
		t.Fatal(status, text, err)
	}
	eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
	if row := r.rows.all()[0]; row.CostUSD != 0.000225 || row.Model != "gpt-4o-2024-08-06" { // 10 at 2.50, 20 at 10
		t.Errorf("%+v", row)
	}
}

func TestPartsOfABudgetAreEvents(t *testing.T) {
	r := newRig(t, anthropicHost, provider{body: "{}"})
	r.limit(t, budget.Day, budget.Requests, 5)
	for range 5 {
		if status, text, _, err := r.post(t, "/v1/messages", question); status != 200 || err != nil {
			t.Fatal(status, text, err)
		}
	}
	eventually(t, "the last warning", func() bool { return strings.Contains(r.rows.events(), "budget-warning 100 %") })
	for _, want := range []string{"budget-warning 50 % of the requests budget of vm dev a day: 3 requests of 5 requests", "budget-warning 80 %"} {
		if strings.Count(r.rows.events(), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, r.rows.events())
		}
	}
}

func TestASocketToAModelIsRefusedWhereTokensAreLimited(t *testing.T) {
	r := newRig(t, openAIHost, provider{})
	ask := func() error {
		f := &flow.Flow{VM: "dev", Host: openAIHost, Port: 443, Scheme: "wss", Type: "websocket", Began: time.Now()}
		defer func() { f.Finish(flow.End{At: time.Now(), Sent: 10, Received: 20}) }()
		req, err := http.NewRequestWithContext(flow.With(t.Context(), f), http.MethodGet, "https://"+openAIHost+"/v1/realtime", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return r.tap.ModifyRequest(req)
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if used, held := r.used(t, budget.Bytes); used != 30 || held != 0 {
		t.Error(used, held)
	}
	r.limit(t, budget.Day, budget.Tokens, 1_000_000)
	if refusal, ok := errors.AsType[*flow.Refusal](ask()); !ok || refusal.Status != http.StatusForbidden {
		t.Error("it passed")
	}
}

func TestARequestWithoutAFlowIsRefused(t *testing.T) {
	r := newRig(t, anthropicHost, provider{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if r.tap.ModifyRequest(req) == nil || r.tap.ModifyResponse(&http.Response{Request: req}) == nil {
		t.Error("it passed")
	}
}

// BenchmarkCall is a call through a proxy in small, with and without a Tap: what reading, reserving, settling and recording cost.
func BenchmarkCall(b *testing.B) {
	body := `{"model":"claude-sonnet-4-5","max_tokens":100,"stream":true,"messages":[` + strings.Repeat(`{"role":"user","content":"`+strings.Repeat("some words ", 100)+`"},`, 99) + `{"role":"user","content":"hi"}]}`
	answer := anthropicAnswer(200, "")
	for _, tapped := range []bool{false, true} {
		b.Run(fmt.Sprintf("tapped=%v", tapped), func(b *testing.B) {
			r := newRig(b, anthropicHost, provider{contentType: "text/event-stream", body: answer, piece: 1000})
			r.bare = !tapped
			b.SetBytes(int64(len(body) + len(answer)))
			for b.Loop() {
				res, err := http.Post(r.proxy.URL+"/v1/messages", "application/json", strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					b.Fatal(err)
				}
				if err := res.Body.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
