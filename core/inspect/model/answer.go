package model

import (
	"bytes"
	"mime"
	"slices"

	"capsem/core/inspect/jsonscan"
	"capsem/core/inspect/sse"
)

// Answer is what is known of an answer.
type Answer struct {
	// ID and Model are what the provider says.
	ID, Model string
	// Stop is why the model stopped, in the provider's words.
	Stop string
	// Usage is what the provider counted.
	Usage Usage
	// Calls are the tools that the model asked for; what they are called with is cut where it is long.
	Calls []ToolCall
	// Text and Thinking are beginnings, where they are kept.
	Text, Thinking string
	// OutputBytes is the length of all that the model wrote: text, thinking and arguments of tools.
	OutputBytes int64
	// Error is the provider's, if it sent one.
	Error string
	// Events counts the pieces of a stream. Done says that it has come to the end that this API marks.
	Events int
	Done   bool
	// Note says what was wrong with it; empty when it was read to its end.
	Note string
}

// OutputTokens estimates what has been written so far: what the provider says, or what the length of the text says if that is more.
func (a *Answer) OutputTokens() int64 { return max(a.Usage.Output, a.OutputBytes/4) }

// How an answer comes.
const (
	asJSON = iota
	asEvents
	asOther
)

// AnswerParser reads the body of an answer.
type AnswerParser struct {
	e      Endpoint
	keep   int
	form   int
	events sse.Parser
	scan   jsonscan.Scanner
	a      Answer
	c      counts
	err    error
	// onEvent is called behind each event.
	onEvent func(end int64)

	text, thinking kept
	// calls are being read: by their number in the answer, in the order in which they began.
	calls  []*call
	part   part
	first  bool // something of the model has come
	ending bool // this event is the last that counts
	closed bool
}

// call is a tool call on its way.
type call struct {
	number int
	ToolCall
	arguments kept
	args      digest
	dropped   bool
}

// part is one piece of an answer that is being read: a content block, an output item.
type part struct {
	number  int
	kind    string
	thought bool
	call    *call
	rebuilt rebuilt
}

// NewAnswer makes a parser for an answer with this content type. keep is how much is kept of texts, 0 for nothing. onEvent, if any, is
// called in Write when an event of a stream has ended, with the offset behind it.
func NewAnswer(e Endpoint, contentType string, keep int, onEvent func(end int64)) *AnswerParser {
	p := &AnswerParser{e: e, keep: keep, onEvent: onEvent, text: kept{limit: keep}, thinking: kept{limit: keep}}
	p.scan.On = jsonscan.Handler{Begin: p.begin, End: p.end, Value: p.value}
	p.scan.MaxText = max(jsonscan.DefaultText, min(keep, maxArguments))
	p.events.Data = p.data
	p.events.Event = p.event
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil && contentType != "":
		p.form = asOther
	case media == "text/event-stream":
		p.form = asEvents
	case media == "", media == "application/json", media == "application/x-ndjson", media == "application/jsonl", media == "application/json-seq":
		p.form = asJSON
	default:
		p.form = asOther
	}
	return p
}

// Streams reports whether the answer comes in pieces that can be cut between.
func (p *AnswerParser) Streams() bool { return p.form == asEvents }

// Write reads on. It never fails.
func (p *AnswerParser) Write(b []byte) (int, error) {
	switch p.form {
	case asEvents:
		_, _ = p.events.Write(b)
	case asJSON:
		p.data(b)
	}
	return len(b), nil
}

// data reads JSON.
func (p *AnswerParser) data(b []byte) {
	if p.err == nil {
		_, p.err = p.scan.Write(b)
	}
}

// event follows the data of an event.
func (p *AnswerParser) event(e sse.Event) {
	p.a.Events++
	if err := p.scan.Close(); p.err == nil && err != nil {
		p.err = err
	}
	if p.err != nil {
		// One that is not JSON ("[DONE]", a comment of some gateway) says nothing about the next.
		if e.Size == int64(len("[DONE]")) && p.e.Family == FamilyOpenAI {
			p.a.Done = true
		} else if e.Size > int64(len("[DONE]")) || e.Cut {
			p.note("an event is not JSON: " + p.err.Error())
		}
		p.err = nil
	}
	p.a.Done = p.a.Done || p.ending
	p.scan.Reset()
	p.part = part{}
	if p.onEvent != nil {
		p.onEvent(e.End)
	}
}

func (p *AnswerParser) note(s string) {
	if p.a.Note == "" {
		p.a.Note = s
	}
}

// Begun reports whether something that the model wrote has come.
func (p *AnswerParser) Begun() bool { return p.first || p.a.OutputBytes > 0 }

// Now is what is known so far, but for texts and calls.
func (p *AnswerParser) Now() Answer {
	a := p.a
	a.Usage = p.c.usage(p.e.Family)
	return a
}

// Close says that the body has ended, and returns what is known.
func (p *AnswerParser) Close() Answer {
	if p.closed {
		return p.a
	}
	p.closed = true
	switch {
	case p.form == asJSON && p.err == nil:
		p.err = p.scan.Close()
		if p.err == nil && p.scan.Documents() == 0 {
			p.note("the answer is empty")
		}
	case p.form == asEvents && p.events.Open():
		p.note("the stream ends in the middle of an event")
	case p.form == asOther:
		p.note("the answer is no JSON")
	}
	if p.err != nil {
		p.note(p.err.Error())
	}
	if p.c.absurd {
		p.note("a count of tokens is absurd and was refused")
	}
	p.a.Usage = p.c.usage(p.e.Family)
	p.a.Text, p.a.Thinking = string(bytes.ToValidUTF8(p.text.text, []byte("?"))), string(bytes.ToValidUTF8(p.thinking.text, []byte("?")))
	for _, c := range p.calls {
		if c.dropped || c.Name == "" && c.ID == "" {
			continue
		}
		if c.ID == "" {
			c.ID = c.args.id(c.Name)
		}
		if p.keep > 0 {
			c.Arguments = string(bytes.ToValidUTF8(c.arguments.text, []byte("?")))
		}
		p.a.Calls = append(p.a.Calls, c.ToolCall)
	}
	return p.a
}

// callAt is the call with a number, a new one if there is none.
func (p *AnswerParser) callAt(number int) *call {
	for _, c := range slices.Backward(p.calls) {
		if c.number == number {
			return c
		}
	}
	return p.newCall(number)
}

func (p *AnswerParser) newCall(number int) *call {
	c := &call{number: number, arguments: kept{limit: min(p.keep, maxArguments)}}
	if len(p.calls) < maxTools {
		p.calls = append(p.calls, c)
	}
	return c
}

// wrote counts what the model wrote.
func (p *AnswerParser) wrote(v jsonscan.Value, to *kept) {
	p.a.OutputBytes += v.Size
	if to != nil {
		to.add(v.Text)
	}
}
