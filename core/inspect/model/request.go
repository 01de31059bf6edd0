package model

import (
	"bytes"

	"capsem/core/inspect/jsonscan"
)

const (
	// blobBytes is how long a text of base64 is that is taken for an image or a file and not for words.
	blobBytes = 1 << 10
	// blobTokens is what a provider counts for one, roughly, and blobShare how many bytes of a long one are a token more.
	blobTokens, blobShare = 1600, 64
	// bytesPerToken is less than what texts have on average, so that estimates are high rather than low.
	bytesPerToken = 3
	// defaultOutput is what an answer may be taken to have when the request does not bound it.
	defaultOutput = 16384
)

// Request is what is known of a request.
type Request struct {
	// Model is whose answer is asked for, Stream whether in pieces.
	Model  string
	Stream bool
	// MaxOutput is the most tokens that the answer may have, of all its choices together; 0 when the request does not say.
	MaxOutput int64
	// Messages and Tools count what it carries.
	Messages, Tools int
	// Results are those of tools at the end of the conversation: clients send all of it again with each request.
	Results []ToolResult
	// System is the beginning of the system prompt, where that is kept.
	System string
	// Bytes is the length of the body, PromptBytes of the texts in it, Blobs how many images and files it has of BlobBytes.
	Bytes, PromptBytes, BlobBytes int64
	Blobs                         int
	// Caches says that the prompt is to be put into a cache, CachesLong for an hour.
	Caches, CachesLong bool
	// Note says what was wrong with it; empty when it was read to its end.
	Note string
}

// InputTokens estimates the tokens of the prompt. It is rather too high.
func (r *Request) InputTokens() int64 {
	n := r.PromptBytes
	if r.Note != "" {
		n = max(n, r.Bytes) // what could not be read is all taken for words
	}
	return min((n+bytesPerToken-1)/bytesPerToken+int64(r.Blobs)*blobTokens+r.BlobBytes/blobShare, MaxTokens)
}

// OutputTokens is the most the answer can have, as far as the request says it.
func (r *Request) OutputTokens() int64 {
	if r.MaxOutput > 0 {
		return r.MaxOutput
	}
	return defaultOutput
}

// RequestParser reads the body of a request.
type RequestParser struct {
	e    Endpoint
	keep int
	scan jsonscan.Scanner
	r    Request
	err  error

	system  kept
	limit   int64 // of one choice
	choices int64
	sum     int64 // of the requests of a batch
	item    item
	// asked are the calls of the model's last message, for shapes in which calls have no id.
	asked []ToolCall
}

// item is a message, or a part of the conversation.
type item struct {
	role, kind string
	call       ToolCall
	result     ToolResult
	content    kept
	args       digest
	// results and calls are complete.
	results []ToolResult
	calls   []ToolCall
}

// NewRequest makes a parser; keep is how much is kept of texts, 0 for nothing.
func NewRequest(e Endpoint, keep int) *RequestParser {
	p := &RequestParser{e: e, keep: keep, choices: 1, system: kept{limit: keep}}
	p.r.Model, p.r.Stream = e.Model, e.Stream || e.Shape == OllamaChat || e.Shape == OllamaGenerate
	p.scan.On = jsonscan.Handler{Begin: p.begin, End: p.end, Value: p.value}
	return p
}

// Write reads on. It never fails.
func (p *RequestParser) Write(b []byte) (int, error) {
	p.r.Bytes += int64(len(b))
	if p.err == nil {
		_, p.err = p.scan.Write(b)
	}
	return len(b), nil
}

// Close says that the body has ended, and returns what is known.
func (p *RequestParser) Close() Request {
	if p.err == nil {
		p.err = p.scan.Close()
	}
	if p.err != nil {
		p.r.Note = p.err.Error()
	}
	p.r.System = string(bytes.ToValidUTF8(p.system.text, []byte("?")))
	p.r.MaxOutput = min(mul(p.limit, p.choices)+p.sum, MaxTokens)
	return p.r
}

// Plausible reports whether the body looks like one of this API, where the host does not say that it is.
func (r *Request) Plausible() bool { return r.Model != "" && (r.Messages > 0 || r.PromptBytes > 0) }

func mul(a, b int64) int64 {
	if b > 1 && a > MaxTokens/b {
		return MaxTokens
	}
	return a * max(b, 1)
}

// trim leaves out what some APIs wrap a request in.
func (p *RequestParser) trim(at jsonscan.Path) jsonscan.Path {
	switch {
	case p.e.Shape == AnthropicBatch && at.Under("requests", "*", "params"):
		return at.From(3)
	case p.e.Shape == Google && at.Under("request"):
		return at.From(1)
	case p.e.Shape == GoogleEmbed && at.Under("requests", "*"):
		return at.From(2)
	}
	return at
}

// conversation is the key of what holds the messages.
func (p *RequestParser) conversation() string {
	switch p.e.Family {
	case FamilyGoogle:
		return "contents"
	case FamilyOpenAI:
		if p.e.Shape == OpenAIResponses {
			return "input"
		}
	}
	return "messages"
}

func (p *RequestParser) begin(at jsonscan.Path, _ jsonscan.Kind) {
	at = p.trim(at)
	switch {
	case at.Is(p.conversation(), "*"):
		p.r.Messages++
		p.item = item{content: kept{limit: p.keep}}
	case p.e.Family == FamilyAnthropic && at.Is("messages", "*", "content", "*"), at.Is("contents", "*", "parts", "*"):
		p.item.kind, p.item.result, p.item.content.text = "", ToolResult{}, p.item.content.text[:0]
	case at.Is(p.conversation(), "*", "tool_calls", "*"), p.e.Shape == Google && at.Len() == 5 && isCall(at.Last()):
		p.item.call, p.item.args = ToolCall{}, 0
	case at.Is("tools", "*"):
		p.r.Tools++
	case at.Is("tools", "*", "functionDeclarations"), at.Is("tools", "*", "function_declarations"):
		p.r.Tools-- // each of them counts
	case at.Is("tools", "*", "functionDeclarations", "*"), at.Is("tools", "*", "function_declarations", "*"), at.Is("functions", "*"):
		p.r.Tools++
	}
}

func (p *RequestParser) end(at jsonscan.Path, _ jsonscan.Kind) {
	at = p.trim(at)
	switch {
	case at.Is(p.conversation(), "*"):
		p.endItem()
	case p.e.Family == FamilyAnthropic && at.Is("messages", "*", "content", "*"):
		if p.item.kind == "tool_result" {
			p.addResult(p.item.result.ID)
		}
	case p.e.Family == FamilyGoogle && at.Is("contents", "*", "parts", "*"):
		if p.item.kind == "result" {
			p.addResult(p.item.result.ID)
		}
	case at.Is(p.conversation(), "*", "tool_calls", "*"), p.e.Shape == Google && at.Len() == 5 && isCall(at.Last()):
		if c := &p.item.call; len(p.item.calls) < maxTools {
			if c.ID == "" {
				c.ID = p.item.args.id(c.Name)
			}
			p.item.calls = append(p.item.calls, *c)
		}
	case at.Len() == 0 && p.e.Shape == AnthropicBatch:
		p.sum, p.limit = min(p.sum+p.limit, MaxTokens), 0
	}
}

func isCall(key []byte) bool {
	return string(key) == "functionCall" || string(key) == "function_call"
}

func isResponse(key []byte) bool {
	return string(key) == "functionResponse" || string(key) == "function_response"
}

func (p *RequestParser) addResult(id string) {
	p.item.result.ID = id
	p.item.result.Content = string(bytes.ToValidUTF8(p.item.content.text, []byte("?")))
	if len(p.item.results) < maxTools {
		p.item.results = append(p.item.results, p.item.result)
	}
	p.item.result, p.item.content.text, p.item.kind = ToolResult{}, p.item.content.text[:0], ""
}

// endItem adds what a message had: results only count when no message of the model follows them.
func (p *RequestParser) endItem() {
	it := &p.item
	switch p.e.Shape {
	case OpenAIResponses:
		switch it.kind {
		case "function_call_output", "custom_tool_call_output", "local_shell_call_output":
			p.addResult(it.result.ID)
		case "function_call", "custom_tool_call", "reasoning":
			it.role = "assistant"
		}
	case OpenAIChat, OllamaChat:
		if it.role == "tool" || it.role == "function" {
			p.addResult(it.result.ID)
		}
	}
	if it.role == "assistant" || it.role == "model" {
		p.r.Results, p.asked = nil, it.calls
		return
	}
	for _, r := range it.results {
		if r.ID == "" {
			r.ID = p.answered(r.name)
		}
		if len(p.r.Results) < maxTools {
			p.r.Results = append(p.r.Results, r)
		}
	}
}

// answered is the id of the first call of a tool that has no result yet.
func (p *RequestParser) answered(name string) string {
	for i, c := range p.asked {
		if c.Name == name || name == "" {
			p.asked = append(p.asked[:i:i], p.asked[i+1:]...)
			return c.ID
		}
	}
	return ""
}
