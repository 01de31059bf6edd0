package model

import "capsem/core/inspect/jsonscan"

// blobKeys are keys of texts that are images, files, or what only the provider can read.
var blobKeys = map[string]bool{
	"data": true, "url": true, "image_url": true, "file_data": true, "signature": true, "thoughtSignature": true, "thought_signature": true,
	"encrypted_content": true, "images": true,
}

func (p *RequestParser) value(at jsonscan.Path, v jsonscan.Value) {
	at = p.trim(at)
	p.count(at, v)
	if at.Len() == 1 || at.Len() == 2 && at.Index(0) < 0 && at.Index(1) < 0 {
		p.setting(at, v)
	}
	switch {
	case v.Kind != jsonscan.String:
		if p.e.Family == FamilyAnthropic && at.Is("messages", "*", "content", "*", "is_error") {
			p.item.result.Failed = v.Bool()
		}
		if p.e.Shape == Google && at.Under("contents", "*", "parts", "*") && isCall(at.Key(4)) && at.Len() > 5 {
			p.item.args.add(at.From(6), v)
		}
		if p.e.Shape == OllamaChat && at.Under("messages", "*", "tool_calls", "*", "function", "arguments") {
			p.item.args.add(at.From(6), v)
		}
	case p.e.Family == FamilyAnthropic:
		p.anthropic(at, v)
	case p.e.Family == FamilyGoogle:
		p.google(at, v)
	case p.e.Shape == OpenAIResponses:
		p.responses(at, v)
	default:
		p.chat(at, v)
	}
}

// count adds to the length of the prompt.
func (p *RequestParser) count(at jsonscan.Path, v jsonscan.Value) {
	key := at.Last()
	if v.Kind == jsonscan.String && v.Size >= blobBytes && blobKeys[string(key)] {
		p.r.Blobs++
		p.r.BlobBytes += v.Size
		return
	}
	p.r.PromptBytes += v.Size + int64(len(key)) + 2
	switch string(key) {
	case "type":
		p.r.Caches = p.r.Caches || string(v.Text) == "ephemeral"
	case "ttl":
		p.r.CachesLong = p.r.CachesLong || string(v.Text) == "1h"
	}
}

// setting takes what is at the top of a request, or in its generationConfig.
func (p *RequestParser) setting(at jsonscan.Path, v jsonscan.Value) {
	n, whole := v.Int()
	switch string(at.Last()) {
	case "model":
		if at.Len() == 1 && v.Kind == jsonscan.String {
			p.r.Model = bounded(string(v.Text))
		}
	case "stream":
		if at.Len() == 1 && v.Kind == jsonscan.Bool {
			p.r.Stream = v.Bool()
		}
	case "max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample", "maxOutputTokens", "num_predict":
		if whole && n > 0 {
			p.limit = min(max(p.limit, n), MaxTokens)
		}
	case "n", "best_of", "candidateCount", "candidate_count":
		if whole && n > 0 {
			p.choices = min(max(p.choices, n), MaxTokens)
		}
	case "prompt", "instructions", "system":
		if v.Kind == jsonscan.String && at.Len() == 1 {
			if string(at.Last()) == "prompt" {
				p.r.Messages++
			} else {
				p.system.add(v.Text)
			}
		}
	case "input":
		if v.Kind == jsonscan.String && at.Len() == 1 {
			p.r.Messages++
		}
	}
}

func (p *RequestParser) anthropic(at jsonscan.Path, v jsonscan.Value) {
	switch {
	case at.Is("system", "*", "text"):
		p.system.add(v.Text)
	case at.Is("messages", "*", "role"):
		p.item.role = bounded(string(v.Text))
	case at.Is("messages", "*", "content", "*", "type"):
		p.item.kind = bounded(string(v.Text))
	case at.Is("messages", "*", "content", "*", "tool_use_id"):
		p.item.result.ID = bounded(string(v.Text))
	case at.Is("messages", "*", "content", "*", "content"), at.Is("messages", "*", "content", "*", "content", "*", "text"):
		p.item.content.add(v.Text)
	}
}

func (p *RequestParser) google(at jsonscan.Path, v jsonscan.Value) {
	switch {
	case at.Is("systemInstruction", "parts", "*", "text"), at.Is("system_instruction", "parts", "*", "text"):
		p.system.add(v.Text)
	case at.Is("contents", "*", "role"):
		p.item.role = bounded(string(v.Text))
	case !at.Under("contents", "*", "parts", "*") || at.Len() < 6:
	case isCall(at.Key(4)):
		switch {
		case at.Len() == 6 && string(at.Key(5)) == "name":
			p.item.call.Name = bounded(string(v.Text))
		case at.Len() == 6 && string(at.Key(5)) == "id":
			p.item.call.ID = bounded(string(v.Text))
		default:
			p.item.args.add(at.From(6), v)
		}
	case isResponse(at.Key(4)):
		p.item.kind = "result"
		switch {
		case at.Len() == 6 && string(at.Key(5)) == "name":
			p.item.result.name = bounded(string(v.Text))
		case at.Len() == 6 && string(at.Key(5)) == "id":
			p.item.result.ID = bounded(string(v.Text))
		default:
			p.item.result.Failed = p.item.result.Failed || at.Len() == 7 && string(at.Key(6)) == "error"
			p.item.content.add(v.Text)
		}
	}
}

func (p *RequestParser) responses(at jsonscan.Path, v jsonscan.Value) {
	switch {
	case at.Is("input", "*", "role"):
		p.item.role = bounded(string(v.Text))
	case at.Is("input", "*", "type"):
		p.item.kind = bounded(string(v.Text))
	case at.Is("input", "*", "call_id"):
		p.item.result.ID = bounded(string(v.Text))
	case at.Is("input", "*", "output"), at.Is("input", "*", "output", "*", "text"):
		p.item.content.add(v.Text)
	}
}

func (p *RequestParser) chat(at jsonscan.Path, v jsonscan.Value) {
	switch {
	case at.Is("messages", "*", "role"):
		p.item.role = bounded(string(v.Text))
	case at.Is("messages", "*", "tool_call_id"):
		p.item.result.ID = bounded(string(v.Text))
	case at.Is("messages", "*", "tool_name"), at.Is("messages", "*", "name"):
		p.item.result.name = bounded(string(v.Text))
	case at.Is("messages", "*", "content"), at.Is("messages", "*", "content", "*", "text"):
		p.item.content.add(v.Text)
		if p.item.role == "system" || p.item.role == "developer" {
			p.system.add(v.Text)
		}
	case at.Is("messages", "*", "tool_calls", "*", "id"):
		p.item.call.ID = bounded(string(v.Text))
	case at.Is("messages", "*", "tool_calls", "*", "function", "name"):
		p.item.call.Name = bounded(string(v.Text))
	case p.e.Shape == OllamaChat && at.Under("messages", "*", "tool_calls", "*", "function", "arguments"):
		p.item.args.add(at.From(6), v)
	}
}
