package ledger

import "time"

// ModelCall is one request to a model's API, with the tools it called and the results it was sent.
type ModelCall struct {
	// Time is when it began; zero is now.
	Time time.Time
	// Provider and Model say who answered.
	Provider, Model string
	// Process is who asked.
	Process Process
	// Method and Path are the request's.
	Method, Path string
	// Stream is set for a streamed answer.
	Stream bool
	// SystemPrompt and RequestBody are beginnings, kept only where the owner wants bodies kept.
	SystemPrompt, RequestBody string
	// Messages and Tools count what the request carried.
	Messages, Tools int
	// RequestBytes and ResponseBytes are the lengths of the bodies.
	RequestBytes, ResponseBytes int64
	// MessageID is the provider's.
	MessageID string
	// Status is the answer's.
	Status int
	// Text and Thinking are beginnings of the answer, kept only where the owner wants bodies kept.
	Text, Thinking string
	// StopReason is the provider's.
	StopReason string
	// InputTokens and OutputTokens are as the provider counts.
	InputTokens, OutputTokens int64
	// Duration is from the request to the end of the answer.
	Duration time.Duration
	// CostUSD is our estimate; NaN when the price is not known.
	CostUSD float64
	// TraceID joins the calls of one task.
	TraceID string
	// Usage is the provider's count in detail, as JSON.
	Usage string
	// Calls and Results are rows of their own that point to this one.
	Calls []ToolCall
	// Results are what the request carried of earlier calls.
	Results []ToolResponse
}

func (e ModelCall) table() int { return modelTable }

func (e ModelCall) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Provider)
	c.text(e.Model)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
	c.text(e.Method)
	c.secretive(e.Path, MaxText)
	c.bool(e.Stream)
	c.body(e.SystemPrompt)
	c.int(int64(e.Messages))
	c.int(int64(e.Tools))
	c.int(e.RequestBytes)
	c.body(e.RequestBody)
	c.text(e.MessageID)
	c.id(int64(e.Status))
	c.body(e.Text)
	c.body(e.Thinking)
	c.text(e.StopReason)
	c.int(e.InputTokens)
	c.int(e.OutputTokens)
	c.millis(e.Duration)
	c.int(e.ResponseBytes)
	c.real(e.CostUSD)
	c.text(e.TraceID)
	c.bounded(e.Usage, MaxText)
}

// children are at most maxChildren rows of each kind, and one more row that counts the rest.
func (e ModelCall) children() []Row {
	var out []Row
	for i, call := range e.Calls {
		if i == maxChildren {
			break
		}
		out = append(out, call)
	}
	for i, result := range e.Results {
		if i == maxChildren {
			break
		}
		out = append(out, result)
	}
	return out
}

func (e ModelCall) cut() int64 {
	return int64(max(0, len(e.Calls)-maxChildren) + max(0, len(e.Results)-maxChildren))
}

// maxChildren bounds the tool calls and the tool results of one model call.
const maxChildren = 256

// ToolCall is a tool that a model asked for.
type ToolCall struct {
	// Index is its place in the answer.
	Index int
	// CallID is the provider's.
	CallID string
	// Tool is its name.
	Tool string
	// Arguments are JSON, kept only where the owner wants bodies kept.
	Arguments string
	// Origin is "native" or "mcp".
	Origin string
	// MCPCall is the row of mcp_calls it led to, if known.
	MCPCall int64
}

func (e ToolCall) table() int { return toolTable }

func (e ToolCall) encode(c *cells) {
	c.null()
	c.int(int64(e.Index))
	c.text(e.CallID)
	c.text(e.Tool)
	c.body(e.Arguments)
	c.text(e.Origin)
	c.id(e.MCPCall)
}

// ToolResponse is the result of a tool, as the model was told it.
type ToolResponse struct {
	// CallID is the call it answers.
	CallID string
	// Content is a beginning, kept only where the owner wants bodies kept.
	Content string
	// Failed is set when the tool reported an error.
	Failed bool
}

func (e ToolResponse) table() int { return toolResponseTable }

func (e ToolResponse) encode(c *cells) {
	c.null()
	c.text(e.CallID)
	c.body(e.Content)
	c.bool(e.Failed)
}

// MCPCall is one request to an MCP server through the gateway.
type MCPCall struct {
	// Time is when it began; zero is now.
	Time time.Time
	// Server, Method and Tool say what was asked of whom.
	Server, Method, Tool string
	// RequestID is the caller's.
	RequestID string
	// Request and Response are beginnings, kept only where the owner wants bodies kept.
	Request, Response string
	// Decision is "allowed", "denied" or "error", Rule what decided.
	Decision, Rule string
	// AskID joins it to the approval that held it.
	AskID string
	// Duration is how long it took.
	Duration time.Duration
	// Error is what failed.
	Error string
	// Process is who asked.
	Process Process
	// Sent and Received count bytes.
	Sent, Received int64
}

func (e MCPCall) table() int { return mcpTable }

func (e MCPCall) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Server)
	c.text(e.Method)
	c.text(e.Tool)
	c.text(e.RequestID)
	c.body(e.Request)
	c.body(e.Response)
	c.text(e.Decision)
	c.millis(e.Duration)
	c.secretive(e.Error, MaxText)
	c.text(e.Process.Name)
	c.int(e.Sent)
	c.int(e.Received)
	c.text(e.Rule)
	c.id(e.Process.PID)
	c.text(e.AskID)
}
