package api

import "encoding/json"

// ApprovalsReply is what waits for the owner, the oldest first.
type ApprovalsReply struct {
	// Pending are the questions: id, vm, process, method, url, host, port, size, rule, reason, asked, expires, waiting, and the choices
	// there are, each with what it allows.
	Pending []json.RawMessage `json:"pending"`
	// Waiting counts them; there may be more than are listed.
	Waiting int `json:"waiting"`
}

// Question is one entry of ApprovalsReply, as far as a client shows it.
type Question struct {
	ID      string `json:"id"`
	VM      string `json:"vm"`
	Process struct {
		PID         int32  `json:"pid"`
		Name        string `json:"name"`
		CommandLine string `json:"command_line"`
	} `json:"process"`
	Host   string `json:"host"`
	Port   int    `json:"port"`
	Method string `json:"method"`
	URL    string `json:"url"`
	Size   int64  `json:"size"`
	// MCPServer and MCPTool make it a call of a tool, MCPArgs are its arguments as JSON. Cut says that something was too long to be shown.
	MCPServer string `json:"mcp_server"`
	MCPTool   string `json:"mcp_tool"`
	MCPArgs   string `json:"mcp_args"`
	Cut       bool   `json:"cut"`
	Rule      string `json:"rule"`
	Reason    string `json:"reason"`
	Expires   string `json:"expires"`
	Waiting   int    `json:"waiting"`
	Choices   []struct {
		Answer string `json:"answer"`
		Reach  string `json:"reach"`
		Allows string `json:"allows"`
	} `json:"choices"`
}

// AnswerRequest answers a question.
type AnswerRequest struct {
	// Answer is once, session, always or deny. Reach is path or host, for session and always; empty is path.
	Answer string `json:"answer"`
	Reach  string `json:"reach,omitempty"`
	// By names the surface that the answer comes from.
	By string `json:"by,omitempty"`
}

// AnswerReply says what was done.
type AnswerReply struct {
	// VM is whose question it was. Rule is what was added to the user's policy after "always".
	VM   string `json:"vm"`
	Rule string `json:"rule,omitempty"`
}
