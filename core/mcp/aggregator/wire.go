// Package aggregator holds the sessions with the owner's MCP servers, in a process of its own that has no files, no programs and no
// sockets but TCP: what a hostile server makes of it, it cannot reach anything with.
//
// It speaks core/mcp/peer with its worker on standard input and output. Servers behind a URL it connects to itself, at addresses that
// the worker looks up. Servers that are programs the worker starts, and passes the ends of their pipes over a second socket, descriptor
// 3: one datagram each, with the number that the aggregator has asked for and two descriptors, to read from and to write to.
package aggregator

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"capsem/core/mcp"
)

// The methods of both sides.
const (
	// Configure (Configuration) replaces the servers. Request (Request) makes an MCP request of one. Refresh (Target) lists anew.
	Configure, Request, Refresh = "configure", "request", "refresh"
	// Open (Target) asks the worker to start a program, Close (Target) to end it. Resolve (Name) asks for the addresses of a name.
	// Ask (Question) hands on what a server asks the client: sampling, or to elicit something.
	// Dress (Target) asks for the headers of a request to a server behind a URL, which hold secrets: they are asked for each time, so that
	// this process keeps none, and a token that was renewed ends no session.
	// Renew (Worn) asks for other headers, since the server has refused the sign-in in those it got.
	Open, Close, Resolve, Ask, Dress, Renew = "open", "close", "resolve", "ask", "dress", "renew"
	// Offered (Offering) tells what a server offers, Event (Happening) of a notification of one.
	Offered, Event = "offered", "event"
)

// Server is one server as the aggregator knows it.
type Server struct {
	Name string `cbor:"name"`
	// URL is where it is; empty is a program that the worker starts.
	URL string `cbor:"url,omitempty"`
	// SSE is the older transport of servers behind a URL.
	SSE bool `cbor:"sse,omitempty"`
	// Dressed says that requests have headers of the owner's, which the worker knows.
	Dressed bool `cbor:"dressed,omitempty"`
	// Proxy is an HTTP proxy to go through, as a URL.
	Proxy string `cbor:"proxy,omitempty"`
	// Limits bound its calls.
	Limits mcp.Limits `cbor:"limits"`
	// Sampling and Elicitation let it ask the client.
	Sampling    bool `cbor:"sampling,omitempty"`
	Elicitation bool `cbor:"elicitation,omitempty"`
	// Version changes when anything of it does that the aggregator cannot see, so that it begins anew.
	Version string `cbor:"version,omitempty"`
}

// same reports whether a session with one may go on as a session with the other.
func (s *Server) same(o *Server) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// Configuration is all servers there are to be.
type Configuration struct {
	Servers []Server `cbor:"servers"`
}

// Target is one server, and the number of its program.
type Target struct {
	Server string `cbor:"server"`
	Number uint64 `cbor:"number,omitempty"`
}

// Call is an MCP request of a server.
type Call struct {
	Server string `cbor:"server"`
	Method string `cbor:"method"`
	// Params are JSON. Token, when not 0, is what progress is reported under.
	Params []byte `cbor:"params,omitempty"`
	Token  uint64 `cbor:"token,omitempty"`
}

// Name is a host name, and its addresses.
type Name struct {
	Server string   `cbor:"server,omitempty"`
	Host   string   `cbor:"host,omitempty"`
	Addrs  []string `cbor:"addrs,omitempty"`
}

// Clothes are the headers of a request.
type Clothes struct {
	Headers map[string]string `cbor:"headers,omitempty"`
	// Mark tells which token of a sign-in is in them; empty is none.
	Mark string `cbor:"mark,omitempty"`
}

// Worn is a server that has refused the token with a mark.
type Worn struct {
	Server string `cbor:"server"`
	Mark   string `cbor:"mark"`
}

// Question is what a server asks of the client.
type Question struct {
	Server string `cbor:"server"`
	Method string `cbor:"method"`
	Params []byte `cbor:"params"`
}

// Offering is what a server offers, or why it does not.
type Offering struct {
	Server string `cbor:"server"`
	// Up says that it answers; else Error says why not.
	Up    bool   `cbor:"up"`
	Error string `cbor:"error,omitempty"`
	// Title, Version and Protocol are what it says of itself.
	Title    string `cbor:"title,omitempty"`
	Version  string `cbor:"version,omitempty"`
	Protocol string `cbor:"protocol,omitempty"`
	// Tools, Resources, Templates and Prompts are JSON objects, as the server lists them.
	Tools     [][]byte `cbor:"tools,omitempty"`
	Resources [][]byte `cbor:"resources,omitempty"`
	Templates [][]byte `cbor:"templates,omitempty"`
	Prompts   [][]byte `cbor:"prompts,omitempty"`
	// Completions and Subscriptions say what else it can do.
	Completions   bool `cbor:"completions,omitempty"`
	Subscriptions bool `cbor:"subscriptions,omitempty"`
}

// The notifications that are handed on.
const (
	Progress, Log, Updated = "progress", "log", "updated"
)

// Happening is a notification of a server.
type Happening struct {
	Server string `cbor:"server"`
	Kind   string `cbor:"kind"`
	// Token is that of the request whose progress it is.
	Token uint64 `cbor:"token,omitempty"`
	// Params are JSON.
	Params []byte `cbor:"params"`
}

// Bounds.
const (
	// maxServers bounds the servers, maxListing the bytes of what one lists, maxItems their number.
	maxServers, maxListing, maxItems = 200, 8 << 20, 2000
	// maxEvent bounds a notification.
	maxEvent = 64 << 10
	// startTime is how long a server may take to answer at first, listTime to list.
	startTime, listTime = 30 * time.Second, 30 * time.Second
	// waitTime is how long a call waits for a server that is being started.
	waitTime = 10 * time.Second
	// relistTime is how often is looked whether tools have changed without a word.
	relistTime = 5 * time.Minute
	// relistPause is the least between two lists.
	relistPause = 500 * time.Millisecond
	// firstPause and longestPause are between attempts to reach a server; one that was up for steadyTime starts over.
	firstPause, longestPause, steadyTime = 250 * time.Millisecond, time.Minute, time.Minute
)

var errTooMuch = errors.New("it lists more than allowed")
