package ledger

import (
	"net/http"
	"time"
)

// Process is what the guest claims of the process behind a row.
type Process struct {
	// Name is its short name, PID its number in the guest.
	Name string
	// PID is its number in the guest.
	PID int64
	// CommandLine is how it was called, and Parents its line of parents, nearest first.
	CommandLine string
	// Parents are the names of the processes above it, nearest first.
	Parents string
}

// NetEvent is one request, or one connection that carried none that could be read.
type NetEvent struct {
	// Time is when it began; zero is now.
	Time time.Time
	// Domain and Port are where it was for.
	Domain string
	// Port is the port it was for.
	Port int
	// Decision is "allowed", "denied" or "error".
	Decision string
	// Rule is the id of the rule that decided, Reason its words.
	Rule string
	// Reason says why.
	Reason string
	// AskID joins it to the approval that held it.
	AskID string
	// Process is who asked.
	Process Process
	// Method, Path and Query are the request's. Credentials in them are redacted.
	Method, Path, Query string
	// Status is the answer's.
	Status int
	// Sent and Received count bytes of bodies, or of the tunnel.
	Sent, Received int64
	// Duration is from its begin to the end of the answer.
	Duration time.Duration
	// RequestHeaders and ResponseHeaders are recorded as hashes but for nine harmless names.
	RequestHeaders, ResponseHeaders http.Header
	// RequestBody and ResponseBody are beginnings of the bodies, kept only where the owner wants that.
	RequestBody, ResponseBody string
	// Type is "https", "http", "h2", "websocket", "tcp" or "tunnel".
	Type string
	// Error is what failed.
	Error string
	// Credential names (never is) the credential put in.
	Credential string
	// Remote is the address that was dialled.
	Remote string
}

func (e NetEvent) table() int { return netTable }

func (e NetEvent) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Domain)
	c.int(int64(e.Port))
	c.text(e.Decision)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
	c.text(e.Method)
	c.secretive(e.Path, MaxText)
	c.bounded(RedactQuery(Clean(e.Query, MaxText)), MaxText)
	c.id(int64(e.Status))
	c.int(e.Sent)
	c.int(e.Received)
	c.millis(e.Duration)
	c.text(e.Rule)
	c.headers(e.RequestHeaders)
	c.headers(e.ResponseHeaders)
	c.body(e.RequestBody)
	c.body(e.ResponseBody)
	c.text(e.Type)
	c.text(e.Reason)
	c.secretive(e.Error, MaxText)
	c.text(e.AskID)
	c.text(e.Credential)
	c.text(e.Remote)
	c.secretive(e.Process.CommandLine, MaxText)
	c.text(e.Process.Parents)
}

// DNSEvent is one question for a name.
type DNSEvent struct {
	// Time is when it was asked; zero is now.
	Time time.Time
	// Name and Type are the question.
	Name, Type string
	// Decision is "allowed", "denied" or "error"; Rule and Reason say why.
	Decision, Rule, Reason string
	// Code is the answer's ("NOERROR", "NXDOMAIN"), Answer what it said.
	Code, Answer string
	// Transport is "udp" or "tcp".
	Transport string
	// Process is who asked.
	Process Process
	// Duration is how long the answer took.
	Duration time.Duration
	// Error is what failed.
	Error string
}

func (e DNSEvent) table() int { return dnsTable }

func (e DNSEvent) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Name)
	c.text(e.Type)
	c.text(e.Decision)
	c.text(e.Rule)
	c.text(e.Reason)
	c.text(e.Code)
	c.text(e.Answer)
	c.text(e.Transport)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
	c.millis(e.Duration)
	c.text(e.Error)
}

// Approval is one question to the owner and what became of it.
type Approval struct {
	// Time is when it was asked; zero is now.
	Time time.Time
	// AskID names the question.
	AskID string
	// Status is "pending", "approved", "denied" or "timeout"; Scope is "once", "session" or "always".
	Status, Scope string
	// Rule and Reason say why it was asked.
	Rule, Reason string
	// Process is who wants something.
	Process Process
	// Method and URL are what it wants; the URL's credentials are redacted.
	Method, URL string
	// Size is the length of the body, as declared.
	Size int64
	// AnsweredBy is the surface the answer came from.
	AnsweredBy string
	// Waited is how long the request was held.
	Waited time.Duration
}

func (e Approval) table() int { return approvalTable }

func (e Approval) encode(c *cells) {
	c.time(e.Time)
	c.text(e.AskID)
	c.text(e.Status)
	c.text(e.Scope)
	c.text(e.Rule)
	c.text(e.Reason)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
	c.secretive(e.Process.CommandLine, MaxText)
	c.text(e.Method)
	c.bounded(redactURL(Clean(e.URL, MaxText)), MaxText)
	c.int(e.Size)
	c.text(e.AnsweredBy)
	c.millis(e.Waited)
}
