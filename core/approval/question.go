package approval

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"capsem/core/policy"
	"capsem/core/proto"
)

const (
	// Bounds of what a question shows, in bytes. A longer URL is cut, and can then be approved once only.
	maxURL, maxText, maxCommand = 2048, 512, 4096
	maxParents                  = 16
)

// Process is who wants something, as the guest claims.
type Process struct {
	PID         int32    `json:"pid,omitempty"`
	UID         uint32   `json:"uid,omitempty"`
	Name        string   `json:"name,omitempty"`
	Exe         string   `json:"exe,omitempty"`
	CommandLine string   `json:"command_line,omitempty"`
	Parents     []string `json:"parents,omitempty"`
}

// Question is something that waits for the owner. Who asks fills what describes the request; the Board sets ID and everything from Asked on.
type Question struct {
	ID      string  `json:"id"`
	VM      string  `json:"vm"`
	Process Process `json:"process"`
	// Scheme, Host and Port are where to; Method and Path are empty for raw TCP. Path has no query.
	Scheme string `json:"scheme,omitempty"`
	Host   string `json:"host,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	// URL is all of it with the query.
	URL string `json:"url,omitempty"`
	// Size is the length of the body, -1 if it is not known.
	Size int64 `json:"size"`
	// MCPServer and MCPTool make it a call of a tool.
	MCPServer string `json:"mcp_server,omitempty"`
	MCPTool   string `json:"mcp_tool,omitempty"`
	// MCPArgs are the arguments of the call, as JSON.
	MCPArgs string `json:"mcp_args,omitempty"`
	// Rule, its Layer and its Reason say why it is asked, Conditions what the rule looks at.
	Rule       string   `json:"rule"`
	Layer      string   `json:"layer,omitempty"`
	Reason     string   `json:"reason,omitempty"`
	Conditions []string `json:"conditions,omitempty"`

	Asked   time.Time `json:"asked"`
	Expires time.Time `json:"expires"`
	// Waiting is how many equal requests are held.
	Waiting int `json:"waiting"`
	// Cut says that something was too long to be shown.
	Cut bool `json:"cut,omitempty"`
	// Choices are the answers there are.
	Choices []Choice `json:"choices"`
}

// Choice is an answer that can be given, and in words what it allows.
type Choice struct {
	Answer string `json:"answer"`
	Reach  string `json:"reach,omitempty"`
	Allows string `json:"allows"`
}

// newQuestion describes a request that a rule asks about.
func newQuestion(req *policy.Request, v *policy.Verdict, by *proto.ProcessClaim) Question {
	q := Question{
		VM: req.VM, Scheme: req.Scheme, Host: req.Host, Port: req.Port, Method: req.Method, Path: req.Path, Size: req.BodySize,
		MCPServer: req.MCPServer, MCPTool: req.MCPTool, MCPArgs: string(req.MCPArgs), Rule: v.RuleID, Layer: v.Layer.String(), Reason: v.Reason, Conditions: v.Matched.Names(),
		Process: Process{Name: req.Process, Exe: req.Exe},
	}
	if by != nil {
		q.Process = Process{PID: by.PID, UID: by.UID, Name: by.Name, Exe: by.Exe, CommandLine: by.CommandLine, Parents: by.Parents}
	}
	if host, err := policy.NormalHost(req.Host); err == nil {
		q.Host = host
	}
	if q.MCPServer == "" {
		q.URL = q.place() + req.Path
		if req.Query != "" {
			q.URL += "?" + req.Query
		}
	}
	return q
}

// place is the URL without path.
func (q *Question) place() string {
	host := q.Host
	if strings.Contains(host, ":") {
		host = "[" + strings.Trim(host, "[]") + "]"
	}
	if q.Port != 0 && (q.Scheme != "https" && q.Scheme != "wss" || q.Port != 443) && (q.Scheme != "http" && q.Scheme != "ws" || q.Port != 80) {
		host = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(int(q.Port)))
	}
	return q.Scheme + "://" + host
}

// sameKey is what requests that share a question have in common: all that it shows, but for the process's number and parents.
type sameKey struct {
	vm, rule, layer, scheme, host, method, path, url, server, tool, args, process, exe, command string

	port uint16
	size int64
}

func (q *Question) key() sameKey {
	return sameKey{
		vm: q.VM, rule: q.Rule, layer: q.Layer, scheme: q.Scheme, host: q.Host, method: q.Method, path: q.Path, url: q.URL,
		server: q.MCPServer, tool: q.MCPTool, args: q.MCPArgs, process: q.Process.Name, exe: q.Process.Exe, command: q.Process.CommandLine, port: q.Port, size: q.Size,
	}
}

// forShow bounds and cleans every text, since most of it is the guest's.
func (q *Question) forShow() {
	for _, text := range []struct {
		s   *string
		max int
	}{
		{&q.VM, maxText},
		{&q.Scheme, maxText},
		{&q.Host, maxText},
		{&q.Method, maxText},
		{&q.MCPServer, maxText},
		{&q.MCPTool, maxText},
		{&q.MCPArgs, maxURL},
		{&q.Rule, maxText},
		{&q.Reason, maxText},
		{&q.Process.Name, maxText},
		{&q.Process.Exe, maxText},
		{&q.Path, maxURL},
		{&q.URL, maxURL},
		{&q.Process.CommandLine, maxCommand},
	} {
		was := *text.s
		*text.s = shown(was, text.max)
		q.Cut = q.Cut || *text.s != was && text.s != &q.Process.CommandLine && text.s != &q.Reason
	}
	q.Process.Parents = slices.Clone(q.Process.Parents[:min(len(q.Process.Parents), maxParents)])
	for i, p := range q.Process.Parents {
		q.Process.Parents[i] = shown(p, maxText)
	}
}

// shown makes a text safe to show anywhere: nothing that moves a cursor, turns the direction of writing or cannot be seen.
func shown(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// copied is a question that its receiver may change.
func (q *Question) copied() Question {
	out := *q
	out.Process.Parents = slices.Clone(q.Process.Parents)
	out.Conditions = slices.Clone(q.Conditions)
	out.Choices = slices.Clone(q.Choices)
	return out
}
