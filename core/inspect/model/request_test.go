package model

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func readRequest(e Endpoint, body string, size int) Request {
	p := NewRequest(e, 100)
	for len(body) > 0 {
		n := min(size, len(body))
		_, _ = p.Write([]byte(body[:n]))
		body = body[n:]
	}
	return p.Close()
}

var requests = []struct {
	name string
	e    Endpoint
	body string
	want string // model, stream, max output, messages, tools, results, system
}{
	{
		"anthropic: results at the end, and a reminder behind them",
		Endpoint{Family: FamilyAnthropic, Shape: Anthropic},
		`{"model":"claude-sonnet-4-5","max_tokens":32000,"stream":true,"system":[{"type":"text","text":"Be good.","cache_control":{"type":"ephemeral","ttl":"1h"}}],
		"tools":[{"name":"a","input_schema":{"type":"object"}},{"name":"b"}],"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"t0","name":"a","input":{}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"t0","content":"old"}]},{"content":[{"type":"tool_use","id":"t1","name":"a","input":{"role":"user"}},{"type":"tool_use","id":"t2","name":"a","input":{}}],"role":"assistant"},
		{"role":"user","content":[{"tool_use_id":"t1","type":"tool_result","content":[{"type":"text","text":"out"}]},{"type":"tool_result","tool_use_id":"t2","is_error":true,"content":"bad"},{"type":"text","text":"note"}]}]}`,
		`claude-sonnet-4-5 true 32000 5 2 [{ID:t1 Content:out Failed:false name:} {ID:t2 Content:bad Failed:true name:}] "Be good." true, true`,
	},
	{
		"anthropic: no results behind an answer of the model",
		Endpoint{Family: FamilyAnthropic, Shape: Anthropic},
		`{"model":"m","max_tokens":5,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"x"}]},{"role":"assistant","content":"done"},{"role":"user","content":"more"}],"system":"S"}`,
		`m false 5 3 0 [] "S" false, false`,
	},
	{
		"anthropic: a batch",
		Endpoint{Family: FamilyAnthropic, Shape: AnthropicBatch},
		`{"requests":[{"custom_id":"a","params":{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"x"}]}},{"custom_id":"b","params":{"max_tokens":200,"model":"m","messages":[]}}]}`,
		`m false 300 1 0 [] "" false, false`,
	},
	{
		"openai chat",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIChat},
		`{"model":"gpt-5","n":3,"max_completion_tokens":100,"messages":[{"role":"system","content":"Sys"},{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"tool_call_id":"c1","role":"tool","content":[{"type":"text","text":"R"}]}],"tools":[{"type":"function"}]}`,
		`gpt-5 false 300 4 1 [{ID:c1 Content:R Failed:false name:}] "Sys" false, false`,
	},
	{
		"openai responses",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIResponses},
		`{"model":"gpt-5","stream":true,"instructions":"I","max_output_tokens":9,"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"function_call","call_id":"c0","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c0","output":"old"},{"type":"reasoning","summary":[]},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"new"}]}`,
		`gpt-5 true 9 6 0 [{ID:c1 Content:new Failed:false name:}] "I" false, false`,
	},
	{"openai responses: a text", Endpoint{Family: FamilyOpenAI, Shape: OpenAIResponses}, `{"model":"gpt-5","input":"hi"}`, `gpt-5 false 0 1 0 [] "" false, false`},
	{"embeddings", Endpoint{Family: FamilyOpenAI, Shape: OpenAIEmbeddings}, `{"model":"e","input":["a","b"]}`, `e false 0 0 0 [] "" false, false`},
	{
		"google: calls without ids",
		Endpoint{Family: FamilyGoogle, Shape: Google, Model: "gemini-2.5-pro", Stream: true},
		`{"systemInstruction":{"parts":[{"text":"SI"}]},"generationConfig":{"candidateCount":2,"maxOutputTokens":50},"tools":[{"functionDeclarations":[{"name":"ls"},{"name":"cat"}]}],
		"contents":[{"role":"user","parts":[{"text":"x"}]},{"role":"model","parts":[{"functionCall":{"args":{"path":"/"},"name":"ls"}},{"functionCall":{"name":"ls","args":{"path":"/tmp","n":1.0}}}]},
		{"role":"user","parts":[{"functionResponse":{"name":"ls","response":{"output":"bin"}}},{"functionResponse":{"name":"ls","response":{"error":"none"}}}]}]}`,
		`gemini-2.5-pro true 100 3 2 [{ID:ls#2uz3bz5aqhmg Content:bin Failed:false name:ls} {ID:ls#1vcvp53zgmb17 Content:none Failed:true name:ls}] "SI" false, false`,
	},
	{
		"google: wrapped, with ids",
		Endpoint{Family: FamilyGoogle, Shape: Google},
		`{"model":"gemini-2.5-flash","project":"p","request":{"contents":[{"role":"model","parts":[{"functionCall":{"id":"i1","name":"ls","args":{}}}]},{"role":"function","parts":[{"functionResponse":{"id":"i1","name":"ls","response":{"output":"bin"}}}]}]}}`,
		`gemini-2.5-flash false 0 2 0 [{ID:i1 Content:bin Failed:false name:ls}] "" false, false`,
	},
	{
		"ollama",
		Endpoint{Family: FamilyOllama, Shape: OllamaChat},
		`{"model":"llama3.2","options":{"num_predict":42},"messages":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"ls","arguments":{"path":"/"}}}]},{"role":"tool","tool_name":"ls","content":"bin"}]}`,
		`llama3.2 true 42 2 0 [{ID:ls#2uz3bz5aqhmg Content:bin Failed:false name:ls}] "" false, false`,
	},
}

func TestRequestsAreUnderstoodInWhateverPiecesTheyCome(t *testing.T) {
	for _, test := range requests {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 3, 50, 1 << 20} {
				r := readRequest(test.e, test.body, size)
				got := fmt.Sprintf("%s %v %d %d %d %+v %q %v, %v", r.Model, r.Stream, r.MaxOutput, r.Messages, r.Tools, r.Results, r.System, r.Caches, r.CachesLong)
				if got != test.want || r.Note != "" || r.Bytes != int64(len(test.body)) {
					t.Fatalf("pieces of %d: %q\n%s, want\n%s", size, r.Note, got, test.want)
				}
			}
		})
	}
}

func TestImagesAreNoWords(t *testing.T) {
	e := Endpoint{Family: FamilyAnthropic, Shape: Anthropic}
	image := strings.Repeat("iVBORw0KGgo", 100_000)
	words := readRequest(e, `{"model":"m","messages":[{"role":"user","content":"`+image+`"}]}`, 1000)
	picture := readRequest(e, `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"`+image+`"}}]}]}`, 1000)
	if words.InputTokens() < 300_000 || picture.Blobs != 1 || picture.InputTokens() > 30_000 || picture.InputTokens() < blobTokens {
		t.Error(words.InputTokens(), picture.InputTokens(), picture.Blobs)
	}
	if half := readRequest(e, `{"model":"m","messages":[{"role":"user","content":[{"data":"`+image, 1000); half.Note == "" || half.InputTokens() < 300_000 {
		t.Error("what cannot be read to its end is taken for words", half.InputTokens(), half.Note)
	}
}

func TestAHundredMegabytesOfRequestAreNotHeld(t *testing.T) {
	var before, after runtime.MemStats
	p := NewRequest(Endpoint{Family: FamilyAnthropic, Shape: Anthropic}, 0)
	runtime.ReadMemStats(&before)
	_, _ = p.Write([]byte(`{"max_tokens":10,"messages":[`))
	piece := []byte(`{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"` + strings.Repeat("word ", 20_000) + `"}]},`)
	for total := 0; total < 100<<20; total += len(piece) {
		_, _ = p.Write(piece)
	}
	_, _ = p.Write([]byte(`{}],"model":"m"}`))
	r := p.Close()
	runtime.ReadMemStats(&after)
	if r.Model != "m" || r.Note != "" || r.Messages < 1000 || len(r.Results) != maxTools {
		t.Errorf("%s %d %d %q", r.Model, r.Messages, len(r.Results), r.Note)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}

func TestWhoseRequestItIs(t *testing.T) {
	for _, test := range []struct {
		method, host, path string
		want               string
	}{
		{"POST", "api.anthropic.com", "/v1/messages", "anthropic 1 free=false"},
		{"POST", "api.anthropic.com", "//v1/./messages", "anthropic 1 free=false"},
		{"POST", "api.anthropic.com", "/v1/messages/count_tokens", "anthropic 1 free=true"},
		{"POST", "api.anthropic.com", "/v1/messages/batches", "anthropic 3 free=false"},
		{"POST", "api.anthropic.com", "/v1/messages/batches/msgbatch_1/cancel", ""},
		{"POST", "api.anthropic.com", "/v1/something/new", "anthropic 0 free=false"},
		{"POST", "api.anthropic.com", "/api/event_logging/batch", ""},
		{"GET", "api.anthropic.com", "/v1/models", ""},
		{"POST", "api.openai.com", "/v1/chat/completions", "openai 4 free=false"},
		{"POST", "api.openai.com", "/v1/responses", "openai 5 free=false"},
		{"POST", "api.openai.com", "/v1/responses/resp_1/cancel", ""},
		{"POST", "api.openai.com", "/v1/images/generations", "openai 0 free=false"},
		{"POST", "api.openai.com", "/v1/files", ""},
		{"POST", "api.openai.com", "/v1/batches", "openai 0 free=false"},
		{"POST", "generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", "google 8 free=false gemini-2.5-pro stream"},
		{"POST", "generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro:countTokens", "google 8 free=true gemini-2.5-pro"},
		{"POST", "us-central1-aiplatform.googleapis.com", "/v1/projects/p/locations/l/publishers/google/models/imagen-4:predict", "google 0 free=false imagen-4"},
		{"POST", "cloudcode-pa.googleapis.com", "/v1internal:generateContent", "google 8 free=false"},
		{"POST", "cloudcode-pa.googleapis.com", "/v1internal:loadCodeAssist", ""},
		{"POST", "openrouter.ai", "/api/v1/chat/completions", "openai-compatible 4 free=false"},
		{"POST", "llm.local", "/v1/messages", "anthropic-compatible 1 free=false"},
		{"POST", "127.0.0.1", "/api/chat", "ollama 10 free=false"},
		{"POST", "example.com", "/v1/things", ""},
		{"POST", "example.com", "/x:predict", ""},
		{"POST", "example.com", "/" + strings.Repeat("a/", 2000), ""},
		// What is not known of a provider's own host costs nobody knows how much.
		{"POST", "api.openai.com", "/" + strings.Repeat("./", 2000) + "v1/chat/completions", "openai 0 free=false"},
		{"POST", "us.api.openai.com", "/v1/chat/completions", "openai 4 free=false"},
		{"POST", "chatgpt.com", "/backend-api/codex/responses", "openai 5 free=false"},
		{"POST", "chatgpt.com", "/backend-api/codex/responses/compact", "openai 0 free=false"},
		{"POST", "chatgpt.com", "/backend-api/conversation", "openai 0 free=false"},
		{"POST", "chatgpt.com", "/backend-api/codex/analytics-events/events", ""},
		{"POST", "generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "google 4 free=false"},
		{"POST", "aiplatform.googleapis.com", "/v1/projects/p/locations/l/endpoints/openapi/chat/completions", "google 4 free=false"},
		{"POST", "generativelanguage.googleapis.com", "/v1beta/interactions", "google 0 free=false"},
		{"POST", "generativelanguage.googleapis.com", "/v1beta/models/m:brandNew", "google 0 free=false m"},
		{"POST", "generativelanguage.googleapis.com", "/upload/v1beta/files", ""},
		{"POST", "aiplatform.googleapis.com", "/v1/projects/p/locations/l/publishers/google/models/m:brandNew", "google 0 free=false m"},
		{"POST", "aiplatform.googleapis.com", "/v1/projects/p/locations/l/datasets", ""},
		{"POST", "cloudcode-pa.googleapis.com", "/v1internal:onboardUser", ""},
	} {
		got := ""
		if e, ok := Identify(test.method, test.host, test.path); ok {
			got = fmt.Sprintf("%s %d free=%v", e.Provider, e.Shape, e.Free)
			if e.Model != "" {
				got += " " + e.Model
			}
			if e.Stream {
				got += " stream"
			}
		}
		if got != test.want {
			t.Errorf("%s %s%.60s: %q, want %q", test.method, test.host, test.path, got, test.want)
		}
	}
}

func FuzzRequests(f *testing.F) {
	for i, test := range requests {
		f.Add(i, test.body, 7)
	}
	f.Fuzz(func(t *testing.T, which int, body string, size int) {
		e := requests[(which%len(requests)+len(requests))%len(requests)].e
		a, b := readRequest(e, body, max(1, size&0xff)), readRequest(e, body, len(body)+1)
		if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
			t.Fatalf("pieces make a difference:\n%+v\n%+v", a, b)
		}
		if a.InputTokens() < 0 || a.MaxOutput < 0 || a.OutputTokens() > MaxTokens || a.Tools < 0 {
			t.Fatalf("%+v", a)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	body := []byte(`{"model":"m","max_tokens":10,"messages":[` + strings.Repeat(`{"role":"user","content":[{"type":"text","text":"`+strings.Repeat("some words of code\\n", 40)+`"}]},`, 200) + `{}]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		p := NewRequest(Endpoint{Family: FamilyAnthropic, Shape: Anthropic}, 0)
		_, _ = p.Write(body)
		p.Close()
	}
}
