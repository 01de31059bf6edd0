package model

import (
	"strings"

	"capsem/core/inspect/jsonscan"
)

func (p *AnswerParser) anthropic(at jsonscan.Path, v jsonscan.Value) {
	last := string(at.Last())
	switch {
	case at.Is("id"):
		p.a.ID = bounded(string(v.Text))
	case at.Is("model"):
		p.a.Model = bounded(string(v.Text))
	case at.Is("stop_reason"), at.Is("delta", "stop_reason"):
		p.a.Stop = bounded(string(v.Text))
	case at.Is("type"):
		p.a.Done = p.a.Done || string(v.Text) == "message_stop"
	case at.Is("completion"):
		p.wrote(v, &p.text)
	case at.Is("delta", last):
		switch last {
		case "text":
			p.wrote(v, &p.text)
		case "thinking":
			p.wrote(v, &p.thinking)
		case "partial_json":
			p.wrote(v, nil)
			if n := len(p.calls); n > 0 { // blocks come one after the other
				p.calls[n-1].arguments.add(v.Text)
			}
		}
	case at.Is("content", "*", last), at.Is("content_block", last):
		p.block(last, v)
	}
}

// block is a part of Anthropic's.
func (p *AnswerParser) block(key string, v jsonscan.Value) {
	switch key {
	case "type":
		p.part.kind = bounded(string(v.Text))
		if p.part.kind == "tool_use" && p.part.call == nil {
			p.part.call = p.newCall(-1)
		}
	case "id", "name":
		if p.part.call == nil {
			p.part.call = p.newCall(-1)
		}
		if key == "id" {
			p.part.call.ID = bounded(string(v.Text))
		} else {
			p.part.call.Name = bounded(string(v.Text))
		}
	case "text":
		p.wrote(v, &p.text)
	case "thinking":
		p.wrote(v, &p.thinking)
	}
}

func (p *AnswerParser) google(at jsonscan.Path, v jsonscan.Value) {
	last := string(at.Last())
	switch {
	case at.Is("modelVersion"):
		p.a.Model = bounded(string(v.Text))
	case at.Is("responseId"):
		p.a.ID = bounded(string(v.Text))
	case at.Is("candidates", "*", "finishReason"):
		p.a.Stop = bounded(string(v.Text))
	case at.Is("promptFeedback", "blockReason"):
		p.a.Stop = bounded(string(v.Text))
	case at.Is("candidates", "*", "content", "parts", "*", "text"):
		if p.part.thought { // the flag may follow the text; then it is counted all the same
			p.wrote(v, &p.thinking)
			return
		}
		p.wrote(v, &p.text)
	case at.Len() == 7 && at.Under("candidates", "*", "content", "parts", "*") && isCall(at.Key(5)):
		if p.part.call == nil {
			p.part.call = p.newCall(-1)
		}
		switch last {
		case "name":
			p.part.call.Name = bounded(string(v.Text))
		case "id":
			p.part.call.ID = bounded(string(v.Text))
		}
	}
}

func (p *AnswerParser) ollama(at jsonscan.Path, v jsonscan.Value) {
	switch {
	case at.Is("model"):
		p.a.Model = bounded(string(v.Text))
	case at.Is("done_reason"):
		p.a.Stop = bounded(string(v.Text))
	case at.Is("message", "content"), at.Is("response"):
		p.wrote(v, &p.text)
	case at.Is("message", "thinking"), at.Is("thinking"):
		p.wrote(v, &p.thinking)
	case at.Is("message", "tool_calls", "*", "function", "name"):
		if p.part.call != nil {
			p.part.call.Name = bounded(string(v.Text))
		}
	}
}

func (p *AnswerParser) responses(at jsonscan.Path, v jsonscan.Value) {
	last := string(at.Last())
	switch {
	case at.Is("id"):
		p.a.ID = bounded(string(v.Text))
	case at.Is("model"):
		p.a.Model = bounded(string(v.Text))
	case at.Is("status"):
		p.a.Stop = bounded(string(v.Text))
		// The usage follows in the same event; the event's end is what counts.
		p.ending = p.a.Stop == "completed" || p.a.Stop == "failed" || p.a.Stop == "incomplete"
	case at.Is("incomplete_details", "reason"):
		p.a.Stop = "incomplete: " + bounded(string(v.Text))
	case at.Is("delta"):
		switch kind := p.part.kind; { // the type of the event, which comes first
		case strings.Contains(kind, "reasoning"):
			p.wrote(v, &p.thinking)
		case strings.Contains(kind, "arguments"), strings.Contains(kind, "input"):
			p.wrote(v, nil)
		default:
			p.wrote(v, &p.text)
		}
	case at.Is("type"):
		p.part.kind = bounded(string(v.Text))
	case at.Is("output", "*", last), at.Is("item", last):
		p.outputItem(last, v)
	case at.Is("output", "*", "content", "*", "text"):
		if p.form == asJSON {
			p.wrote(v, &p.text)
		}
	case at.Is("output", "*", "summary", "*", "text"):
		if p.form == asJSON {
			p.wrote(v, &p.thinking)
		}
	}
}

// outputItem is a part of OpenAI's responses.
func (p *AnswerParser) outputItem(key string, v jsonscan.Value) {
	switch key {
	case "type":
		p.part.kind = bounded(string(v.Text))
		return
	case "call_id", "name", "arguments", "input":
	default:
		return
	}
	if p.part.call == nil {
		p.part.call = p.newCall(-1)
	}
	switch c := p.part.call; key {
	case "call_id":
		c.ID = bounded(string(v.Text))
	case "name":
		c.Name = bounded(string(v.Text))
	default:
		c.arguments.add(v.Text)
		if p.form == asJSON {
			p.a.OutputBytes += v.Size
		}
	}
}

func (p *AnswerParser) chat(at jsonscan.Path, v jsonscan.Value) {
	last := string(at.Last())
	switch {
	case at.Is("id"):
		p.a.ID = bounded(string(v.Text))
	case at.Is("model"):
		p.a.Model = bounded(string(v.Text))
	case at.Is("choices", "*", "finish_reason"):
		p.a.Stop = bounded(string(v.Text))
	case at.Is("choices", "*", "text"):
		p.wrote(v, &p.text)
	case at.Is("choices", "*", "delta", last), at.Is("choices", "*", "message", last):
		switch last {
		case "content", "refusal":
			p.wrote(v, &p.text)
		case "reasoning_content", "reasoning":
			p.wrote(v, &p.thinking)
		}
	case p.part.call == nil:
	case at.Is("choices", "*", "delta", "tool_calls", "*", "id"), at.Is("choices", "*", "message", "tool_calls", "*", "id"):
		p.part.call.ID = bounded(string(v.Text))
	case at.Len() == 7 && string(at.Key(5)) == "function" && last == "name":
		p.part.call.Name = bounded(string(v.Text))
	case at.Len() == 7 && string(at.Key(5)) == "function" && last == "arguments":
		p.wrote(v, &p.part.call.arguments)
	}
}
