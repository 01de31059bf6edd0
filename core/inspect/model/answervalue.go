package model

import "capsem/core/inspect/jsonscan"

// trim leaves out what an answer is wrapped in.
func (p *AnswerParser) trim(at jsonscan.Path) jsonscan.Path {
	switch p.e.Family {
	case FamilyGoogle:
		if at.Index(0) >= 0 { // a stream as one array
			at = at.From(1)
		}
		if at.Under("response") {
			at = at.From(1)
		}
	case FamilyAnthropic:
		if at.Under("message") {
			at = at.From(1)
		}
	case FamilyOpenAI:
		if at.Under("response") {
			at = at.From(1)
		}
	}
	return at
}

func (p *AnswerParser) begin(at jsonscan.Path, k jsonscan.Kind) {
	at = p.trim(at)
	switch {
	case p.isPart(at):
		p.part = part{number: at.Index(max(at.Len()-1, 0)), rebuilt: rebuilt{limit: min(p.keep, maxArguments)}}
		p.first = true
		if p.e.Family == FamilyOllama {
			p.part.call = p.newCall(-1)
		}
	case p.isArguments(at) && p.keep > 0:
		p.part.rebuilt.begin(p.inArguments(at), k)
	case at.Is("choices", "*", "delta", "tool_calls", "*"), at.Is("choices", "*", "message", "tool_calls", "*"):
		p.part = part{number: at.Index(4)}
		p.part.call = &call{number: at.Index(4), arguments: kept{limit: min(p.keep, maxArguments)}}
	}
}

// isPart reports whether an object is one piece of an answer.
func (p *AnswerParser) isPart(at jsonscan.Path) bool {
	switch p.e.Family {
	case FamilyAnthropic:
		return at.Is("content", "*") || at.Is("content_block")
	case FamilyGoogle:
		return at.Is("candidates", "*", "content", "parts", "*")
	case FamilyOllama:
		return at.Is("message", "tool_calls", "*")
	}
	return p.e.Shape == OpenAIResponses && (at.Is("output", "*") || at.Is("item"))
}

// isArguments reports whether something belongs to the arguments of a call, where those are JSON themselves.
func (p *AnswerParser) isArguments(at jsonscan.Path) bool {
	switch p.e.Family {
	case FamilyAnthropic:
		return at.Under("content", "*", "input") || at.Under("content_block", "input")
	case FamilyGoogle:
		return at.Under("candidates", "*", "content", "parts", "*") && isCall(at.Key(5)) && string(at.Key(6)) == "args"
	case FamilyOllama:
		return at.Under("message", "tool_calls", "*", "function", "arguments")
	}
	return false
}

// inArguments is the path within the arguments.
func (p *AnswerParser) inArguments(at jsonscan.Path) jsonscan.Path {
	switch p.e.Family {
	case FamilyAnthropic:
		if at.Index(1) < 0 {
			return at.From(2)
		}
		return at.From(3)
	case FamilyGoogle:
		return at.From(7)
	}
	return at.From(5)
}

func (p *AnswerParser) end(at jsonscan.Path, k jsonscan.Kind) {
	if p.form == asJSON && (p.e.Family == FamilyOllama && at.Len() == 0 || p.e.Family == FamilyGoogle && at.Is("*")) {
		p.a.Events++
		if p.onEvent != nil {
			p.onEvent(p.scan.Offset())
		}
	}
	at = p.trim(at)
	switch {
	case p.isArguments(at) && p.keep > 0:
		p.part.rebuilt.end(k)
	case p.isPart(at):
		p.endPart()
	case at.Is("choices", "*", "delta", "tool_calls", "*"), at.Is("choices", "*", "message", "tool_calls", "*"):
		p.mergeCall()
	}
}

func (p *AnswerParser) endPart() {
	c := p.part.call
	if c == nil {
		return
	}
	if len(p.part.rebuilt.text) > 2 { // more than {}
		c.arguments.add(p.part.rebuilt.text)
	}
	switch {
	case p.e.Family == FamilyAnthropic:
		c.dropped = p.part.kind != "tool_use"
	case p.e.Shape == OpenAIResponses:
		c.dropped = p.part.kind != "function_call" && p.part.kind != "custom_tool_call"
		for _, other := range p.calls { // an item comes when it begins, when it is done, and once more with all of the answer
			if c.dropped || other == c || other.ID != c.ID || other.dropped {
				continue
			}
			c.dropped = true
			if len(other.arguments.text) == 0 {
				other.arguments = c.arguments
			}
		}
	}
	p.part = part{}
}

// mergeCall adds a piece of a call of OpenAI's chat to what came of it before.
func (p *AnswerParser) mergeCall() {
	from := p.part.call
	if from == nil {
		return
	}
	to := p.callAt(p.part.number)
	if to.ID == "" {
		to.ID = from.ID
	}
	if to.Name == "" {
		to.Name = from.Name
	}
	to.arguments.add(from.arguments.text)
	to.args += from.args
	p.part = part{}
}

func (p *AnswerParser) value(at jsonscan.Path, v jsonscan.Value) {
	at = p.trim(at)
	switch {
	case isUsage(at):
		p.c.set(at.Last(), v)
	case v.Kind == jsonscan.Number && string(at.Last()) == "index":
		p.index(at, v)
	}
	if p.isArguments(at) {
		if p.part.call == nil {
			p.part.call = p.newCall(-1)
		}
		p.part.call.args.add(p.inArguments(at), v)
		if p.keep > 0 {
			p.part.rebuilt.value(p.inArguments(at), v)
		}
		p.a.OutputBytes += v.Size + int64(len(at.Last())) + 4
		return
	}
	if v.Kind == jsonscan.Bool && string(at.Last()) == "thought" {
		p.part.thought = v.Bool()
	}
	if v.Kind != jsonscan.String {
		return
	}
	p.error(at, v)
	switch p.e.Family {
	case FamilyAnthropic:
		p.anthropic(at, v)
	case FamilyGoogle:
		p.google(at, v)
	case FamilyOllama:
		p.ollama(at, v)
	default:
		if p.e.Shape == OpenAIResponses {
			p.responses(at, v)
		} else {
			p.chat(at, v)
		}
	}
}

// isUsage reports whether a number is one of the provider's counts.
func isUsage(at jsonscan.Path) bool {
	if at.Under("usage") {
		return at.Len() <= 3
	}
	return at.Len() == 2 && string(at.Key(0)) == "usageMetadata" || at.Len() == 1 && (string(at.Key(0)) == "prompt_eval_count" || string(at.Key(0)) == "eval_count")
}

// index is the number of a piece in a stream.
func (p *AnswerParser) index(at jsonscan.Path, v jsonscan.Value) {
	n, ok := v.Int()
	if !ok || n < 0 || n > 1<<20 {
		return
	}
	switch {
	case at.Is("choices", "*", "delta", "tool_calls", "*", "index"):
		p.part.number = int(n)
	case at.Is("index") && p.e.Family == FamilyAnthropic:
		p.part.number = int(n)
	}
}

// error is the provider's, in whatever shape.
func (p *AnswerParser) error(at jsonscan.Path, v jsonscan.Value) {
	if !at.Under("error") || at.Len() > 2 || len(p.a.Error) > 1<<10 {
		return
	}
	if at.Len() == 1 || string(at.Last()) == "type" || string(at.Last()) == "status" || string(at.Last()) == "message" || string(at.Last()) == "code" {
		if p.a.Error != "" {
			p.a.Error += ": "
		}
		p.a.Error += string(v.Text[:min(len(v.Text), 512)])
	}
}
