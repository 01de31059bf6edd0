package model

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// stream makes events of JSON texts.
func stream(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		var head struct{ Type string }
		if json.Unmarshal([]byte(e), &head) == nil && head.Type != "" {
			fmt.Fprintf(&b, "event: %s\n", head.Type)
		}
		fmt.Fprintf(&b, "data: %s\n\n", e)
	}
	return b.String()
}

// read has an answer read in pieces of a size.
func read(e Endpoint, contentType, body string, size int) Answer {
	p := NewAnswer(e, contentType, 1000, nil)
	for len(body) > 0 {
		n := min(size, len(body))
		_, _ = p.Write([]byte(body[:n]))
		body = body[n:]
	}
	return p.Close()
}

const events, plain = "text/event-stream; charset=utf-8", "application/json"

var anthropicStream = stream(
	`{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[],"stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":300,"cache_read_input_tokens":4000,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"output_tokens":1}}}`,
	`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm. "}}`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM"}}`,
	`{"type":"content_block_stop","index":0}`,
	`{"type":"ping"}`,
	`{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}`,
	`{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Let me look."}}`,
	`{"type":"content_block_stop","index":1}`,
	`{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}}`,
	`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}`,
	`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"command\": \"l"}}`,
	`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"s\"}"}}`,
	`{"type":"content_block_stop","index":2}`,
	`{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"mcp__x__y","input":{}}}`,
	`{"type":"content_block_stop","index":3}`,
	`{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}`,
	`{"type":"message_stop"}`,
)

var answers = []struct {
	name        string
	e           Endpoint
	contentType string
	body        string
	want        Answer
}{
	{
		"anthropic, streamed",
		Endpoint{Family: FamilyAnthropic, Shape: Anthropic},
		events, anthropicStream,
		Answer{
			ID: "msg_1", Model: "claude-sonnet-4-5-20250929", Stop: "tool_use", Text: "Let me look.", Thinking: "Hm. ", OutputBytes: 33, Events: 18, Done: true,
			Usage: Usage{Known: true, Input: 25, CacheRead: 4000, CacheWrite5m: 100, CacheWrite1h: 200, Output: 89, SaidInput: 25, SaidOutput: 89},
			Calls: []ToolCall{{"toolu_1", "Bash", `{"command": "ls"}`}, {"toolu_2", "mcp__x__y", ""}},
		},
	},
	{
		"anthropic",
		Endpoint{Family: FamilyAnthropic, Shape: Anthropic},
		plain,
		`{"id":"msg_2","type":"message","model":"claude-opus-4-5","content":[{"type":"text","text":"Hi"},{"input":{"a":[1,{"b":"c"}],"d":null},"type":"tool_use","name":"T","id":"toolu_3"},{"type":"server_tool_use","id":"srv_1","name":"web_search","input":{"q":"x"}}],"stop_reason":"end_turn","usage":{"input_tokens":10,"cache_creation_input_tokens":7,"output_tokens":5}}`,
		Answer{
			ID: "msg_2", Model: "claude-opus-4-5", Stop: "end_turn", Text: "Hi", OutputBytes: 28,
			Usage: Usage{Known: true, Input: 10, CacheWrite5m: 7, Output: 5, SaidInput: 10, SaidOutput: 5},
			Calls: []ToolCall{{"toolu_3", "T", `{"a":[1,{"b":"c"}],"d":null}`}},
		},
	},
	{
		"anthropic's error in a stream",
		Endpoint{Family: FamilyAnthropic, Shape: Anthropic},
		events,
		stream(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`),
		Answer{Events: 1, Error: "overloaded_error: Overloaded"},
	},
	{
		"openai chat, streamed",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIChat},
		events,
		stream(
			`{"id":"chatcmpl-1","model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}`,
			`{"id":"chatcmpl-1","model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}`,
			`{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"ls","arguments":""}},{"index":1,"id":"call_2","type":"function","function":{"name":"cat","arguments":"{}"}}]}}]}`,
			`{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"p\":"}}]}}]}`,
			`{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]}`,
			`{"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`,
			`{"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":70,"total_tokens":1070,"prompt_tokens_details":{"cached_tokens":800},"completion_tokens_details":{"reasoning_tokens":60}}}`,
			`[DONE]`),
		Answer{
			ID: "chatcmpl-1", Model: "gpt-4o-2024-08-06", Stop: "tool_calls", Text: "Hello", OutputBytes: 14, Events: 8, Done: true,
			Usage: Usage{Known: true, Input: 200, CacheRead: 800, Output: 70, Reasoning: 60, SaidInput: 1000, SaidOutput: 70},
			Calls: []ToolCall{{"call_1", "ls", `{"p":1}`}, {"call_2", "cat", "{}"}},
		},
	},
	{
		"openai chat",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIChat},
		plain,
		`{"id":"chatcmpl-2","model":"gpt-5","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_3","type":"function","function":{"name":"ls","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":5,"completion_tokens":6,"prompt_tokens_details":{"cached_tokens":9}}}`,
		Answer{
			ID: "chatcmpl-2", Model: "gpt-5", Stop: "tool_calls", OutputBytes: 2,
			Usage: Usage{Known: true, CacheRead: 5, Output: 6, SaidInput: 5, SaidOutput: 6},
			Calls: []ToolCall{{"call_3", "ls", "{}"}},
		},
	},
	{
		"openai responses, streamed",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIResponses},
		events,
		stream(
			`{"type":"response.created","response":{"id":"resp_1","model":"gpt-5-2025-08-07","status":"in_progress","output":[]}}`,
			`{"type":"response.reasoning_summary_text.delta","delta":"Think"}`,
			`{"type":"response.output_text.delta","output_index":1,"delta":"Hi"}`,
			`{"type":"response.output_item.added","output_index":2,"item":{"id":"fc_1","type":"function_call","status":"in_progress","arguments":"","call_id":"call_9","name":"shell"}}`,
			`{"type":"response.function_call_arguments.delta","output_index":2,"delta":"{\"x\":1}"}`,
			`{"type":"response.output_item.done","output_index":2,"item":{"id":"fc_1","type":"function_call","arguments":"{\"x\":1}","call_id":"call_9","name":"shell"}}`,
			`{"type":"response.completed","response":{"id":"resp_1","model":"gpt-5-2025-08-07","status":"completed","output":[{"id":"fc_1","type":"function_call","arguments":"{\"x\":1}","call_id":"call_9","name":"shell"}],"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":40},"output_tokens":50,"output_tokens_details":{"reasoning_tokens":30},"total_tokens":150}}}`),
		Answer{
			ID: "resp_1", Model: "gpt-5-2025-08-07", Stop: "completed", Text: "Hi", Thinking: "Think", OutputBytes: 14, Events: 7, Done: true,
			Usage: Usage{Known: true, Input: 60, CacheRead: 40, Output: 50, Reasoning: 30, SaidInput: 100, SaidOutput: 50},
			Calls: []ToolCall{{"call_9", "shell", `{"x":1}`}},
		},
	},
	{
		"openai responses",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIResponses},
		plain,
		`{"id":"resp_2","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"model":"gpt-5","error":null,"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"T"}]},{"type":"message","content":[{"type":"output_text","text":"Hey"}]}],"usage":{"input_tokens":3,"output_tokens":4}}`,
		Answer{
			ID: "resp_2", Model: "gpt-5", Stop: "incomplete: max_output_tokens", Text: "Hey", Thinking: "T", OutputBytes: 4,
			Usage: Usage{Known: true, Input: 3, Output: 4, SaidInput: 3, SaidOutput: 4},
		},
	},
	{
		"openai embeddings",
		Endpoint{Family: FamilyOpenAI, Shape: OpenAIEmbeddings},
		plain,
		`{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-0.2,1e-7]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		Answer{Model: "text-embedding-3-small", Usage: Usage{Known: true, Input: 8, SaidInput: 8}},
	},
	{
		"google, streamed",
		Endpoint{Family: FamilyGoogle, Shape: Google},
		events,
		stream(
			`{"candidates":[{"content":{"parts":[{"text":"Plan","thought":true}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":500,"thoughtsTokenCount":20,"totalTokenCount":520},"modelVersion":"gemini-2.5-pro","responseId":"r1"}`,
			`{"candidates":[{"content":{"parts":[{"thought":true,"text":"ning"},{"text":"Sure"},{"functionCall":{"name":"ls","args":{"path":"/"}},"thoughtSignature":"abc"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":500,"candidatesTokenCount":9,"thoughtsTokenCount":20,"cachedContentTokenCount":400,"totalTokenCount":529},"modelVersion":"gemini-2.5-pro","responseId":"r1"}`),
		Answer{
			ID: "r1", Model: "gemini-2.5-pro", Stop: "STOP", Text: "PlanSure", Thinking: "ning", OutputBytes: 21, Events: 2,
			Usage: Usage{Known: true, Input: 100, CacheRead: 400, Output: 29, Reasoning: 20, SaidInput: 500, SaidOutput: 9},
			Calls: []ToolCall{{"ls#2uz3bz5aqhmg", "ls", `{"path":"/"}`}},
		},
	},
	{
		"google, one array",
		Endpoint{Family: FamilyGoogle, Shape: Google},
		plain,
		`[{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":1}}
,
{"response":{"candidates":[{"content":{"parts":[{"text":"b"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2}}}]`,
		Answer{Stop: "STOP", Text: "ab", OutputBytes: 2, Events: 2, Usage: Usage{Known: true, Input: 4, Output: 2, SaidInput: 4, SaidOutput: 2}},
	},
	{
		"ollama, streamed",
		Endpoint{Family: FamilyOllama, Shape: OllamaChat},
		"application/x-ndjson",
		`{"model":"llama3.2","message":{"role":"assistant","content":"Hel"},"done":false}
{"model":"llama3.2","message":{"role":"assistant","content":"lo","tool_calls":[{"function":{"name":"ls","arguments":{"path":"/"}}}]},"done":false}
{"model":"llama3.2","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"prompt_eval_count":26,"eval_count":12}
`,
		Answer{
			Model: "llama3.2", Stop: "stop", Text: "Hello", OutputBytes: 14, Events: 3,
			Usage: Usage{Known: true, Input: 26, Output: 12, SaidInput: 26, SaidOutput: 12},
			Calls: []ToolCall{{"ls#2uz3bz5aqhmg", "ls", `{"path":"/"}`}},
		},
	},
}

func TestAnswersAreUnderstoodInWhateverPiecesTheyCome(t *testing.T) {
	for _, test := range answers {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 7, 100, 1 << 20} {
				if got := read(test.e, test.contentType, test.body, size); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) {
					t.Fatalf("pieces of %d:\n%+v, want\n%+v", size, got, test.want)
				}
			}
		})
	}
}

func TestATruncatedAnswerYieldsWhatIsKnown(t *testing.T) {
	for _, test := range answers {
		for cut := range len(test.body) {
			a := read(test.e, test.contentType, test.body[:cut], 64)
			if a.Note == "" && !strings.HasPrefix(test.contentType, "text/event-stream") && test.e.Family != FamilyOllama && strings.TrimSpace(test.body[cut:]) != "" {
				t.Fatalf("%s, cut at %d: no note: %+v", test.name, cut, a)
			}
		}
	}
	begin, _, _ := strings.Cut(anthropicStream, "message_delta")
	a := read(answers[0].e, events, begin, 64)
	if a.ID != "msg_1" || a.Usage.Input != 25 || a.Usage.CacheRead != 4000 || len(a.Calls) != 2 || a.Note == "" || a.OutputTokens() != 33/4 {
		t.Errorf("%+v", a)
	}
}

func TestAbsurdCountsAreRefused(t *testing.T) {
	for _, n := range []string{"-1", "1000000001", "1e30", "1.5", `"12"`, "99999999999999999999999"} {
		a := read(Endpoint{Family: FamilyOpenAI, Shape: OpenAIChat}, plain, `{"usage":{"prompt_tokens":`+n+`,"completion_tokens":3}}`, 10)
		if a.Usage.Input != 0 || a.Usage.Output != 3 || !strings.Contains(a.Note, "absurd") {
			t.Errorf("%s: %+v", n, a)
		}
	}
	for n, want := range map[string]int64{"0": 0, "1e3": 1000, "12.0": 12, "1000000000": MaxTokens} {
		if a := read(Endpoint{Family: FamilyOpenAI, Shape: OpenAIChat}, plain, `{"usage":{"prompt_tokens":`+n+`}}`, 10); a.Usage.Input != want || a.Note != "" {
			t.Errorf("%s: %+v", n, a)
		}
	}
}

func TestMalformedEventsDoNotStopTheRest(t *testing.T) {
	body := "data: {\"type\":\"mess\n\n" + "data: <html>\n\n" + anthropicStream
	a := read(answers[0].e, events, body, 5)
	if a.Usage.Output != 89 || a.Note == "" || a.Events != 20 {
		t.Errorf("%+v", a)
	}
	if a := read(answers[0].e, "text/html", "<html>", 5); a.Note == "" {
		t.Errorf("%+v", a)
	}
	if a := read(answers[0].e, plain, "", 5); a.Note == "" {
		t.Errorf("%+v", a)
	}
}

func TestManyToolCallsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"id\":\"t%d\",\"name\":\"x\"}}\n\n", i)
	}
	if a := read(answers[0].e, events, b.String(), 1000); len(a.Calls) != maxTools {
		t.Error(len(a.Calls))
	}
}

func FuzzAnswers(f *testing.F) {
	for i, test := range answers {
		f.Add(i, test.body, 7)
	}
	f.Fuzz(func(t *testing.T, which int, body string, size int) {
		test := answers[(which%len(answers)+len(answers))%len(answers)]
		size = max(1, size&0xff)
		a, b := read(test.e, test.contentType, body, size), read(test.e, test.contentType, body, len(body)+1)
		if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
			t.Fatalf("pieces of %d make a difference:\n%+v\n%+v", size, a, b)
		}
		if u := a.Usage; u.Input < 0 || u.Output < 0 || u.Total() > 6*MaxTokens {
			t.Fatalf("%+v", u)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	event := []byte("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there\"}}\n\n")
	p := NewAnswer(Endpoint{Family: FamilyAnthropic, Shape: Anthropic}, events, 0, func(int64) {})
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		_, _ = p.Write(event)
	}
}
