package api

import "encoding/json"

// MCPServersReply lists the MCP servers that VMs may use.
type MCPServersReply struct {
	Servers []MCPServer `json:"servers"`
}

// MCPServer is one of them.
type MCPServer struct {
	Name string `json:"name"`
	// Source is user or builtin. Transport is stdio, http or sse; Target the command or the URL.
	Source    string `json:"source"`
	Transport string `json:"transport"`
	Target    string `json:"target,omitempty"`
	// State is connected or failed in some VM, or configured where no VM has used it yet.
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	// Tools counts its tools, Held those that wait for approval.
	Tools int `json:"tools"`
	Held  int `json:"held"`
	// VMs are those in which it runs.
	VMs []string `json:"vms,omitempty"`
}

// MCPToolsReply lists the tools that are known.
type MCPToolsReply struct {
	Tools []MCPTool `json:"tools"`
}

// MCPTool is one of them.
type MCPTool struct {
	// Name is server__tool.
	Name   string `json:"name"`
	Server string `json:"server"`
	// State is listed, held or refused; Why says why not listed. Approved is whether it is approved as it is.
	State    string `json:"state"`
	Why      string `json:"why,omitempty"`
	Approved bool   `json:"approved"`
	// Pin is the hash of what follows.
	Pin          string          `json:"pin,omitempty"`
	Title        string          `json:"title,omitempty"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"input_schema,omitempty"`
	OutputSchema json.RawMessage `json:"output_schema,omitempty"`
	Annotations  json.RawMessage `json:"annotations,omitempty"`
	// Before is the description that was approved before it changed.
	Before json.RawMessage `json:"before,omitempty"`
}

// MCPAddRequest adds a server to the user's settings.
type MCPAddRequest struct {
	Name    string            `json:"name"`
	Command string            `json:"command,omitempty"`
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Read    []string          `json:"read,omitempty"`
	Write   []string          `json:"write,omitempty"`
	Network bool              `json:"network,omitempty"`
	URL     string            `json:"url,omitempty"`
	SSE     bool              `json:"sse,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Private bool              `json:"private,omitempty"`
}

// MCPApproveRequest approves a tool, or all of a server.
type MCPApproveRequest struct {
	// Pin, when given, is that of the description that was looked at: one that has changed since is not approved.
	Pin string `json:"pin,omitempty"`
}

// MCPApproveReply names what was approved.
type MCPApproveReply struct {
	Approved []string `json:"approved"`
}

// MCPRefreshRequest has a server, or all, asked again what it offers.
type MCPRefreshRequest struct {
	Server string `json:"server,omitempty"`
}

// MCPCallRequest calls a tool.
type MCPCallRequest struct {
	// VM is in whose name; it may be left out where one runs.
	VM        string          `json:"vm,omitempty"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
}

// MCPLoginRequest stores what a sign-in to a server has got.
type MCPLoginRequest struct {
	// URL is the server's that the owner has signed in to: tokens go to no other.
	URL string `json:"url"`
	// Access is the token, until Expires (RFC 3339) if that is known. Refresh gets the next one at TokenURL.
	Access   string `json:"access"`
	Refresh  string `json:"refresh,omitempty"`
	Expires  string `json:"expires,omitempty"`
	TokenURL string `json:"token_url,omitempty"`
	// ClientID and ClientSecret are who signed in; Basic says that they go into a header at TokenURL.
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	Basic        bool   `json:"basic,omitempty"`
	// Resource is what the tokens are for, as the server calls itself.
	Resource string `json:"resource,omitempty"`
}
