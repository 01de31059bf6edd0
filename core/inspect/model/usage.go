package model

import "capsem/core/inspect/jsonscan"

// MaxTokens is the most that one count may say. More is absurd, and refused as a negative one is.
const MaxTokens = 1_000_000_000

// Usage is what a provider counted, each token in one place only: cached ones are not part of Input, reasoning is part of Output.
type Usage struct {
	// Known says that the provider said something.
	Known bool
	// Input was neither read from nor written to a cache.
	Input int64
	// CacheRead came from a cache; CacheWrite5m and CacheWrite1h were put into one, for that long.
	CacheRead, CacheWrite5m, CacheWrite1h int64
	// Output is all that the model produced, Reasoning the part of it that is not in the answer.
	Output, Reasoning int64
	// SaidInput and SaidOutput are the provider's own numbers, whatever is part of them.
	SaidInput, SaidOutput int64
}

// Total is all tokens.
func (u *Usage) Total() int64 {
	return u.Input + u.CacheRead + u.CacheWrite5m + u.CacheWrite1h + u.Output
}

// counts are the numbers of an answer as they are written. A name may come again: the last counts.
type counts struct {
	input, output, cacheRead, cacheWrite, write5m, write1h, reasoning, toolInput int64

	split, known bool
	absurd       bool
}

// field is where a number belongs.
func (c *counts) field(name string) *int64 {
	switch name {
	case "input_tokens", "prompt_tokens", "promptTokenCount", "prompt_eval_count":
		return &c.input
	case "output_tokens", "completion_tokens", "candidatesTokenCount", "eval_count":
		return &c.output
	case "cache_read_input_tokens", "cached_tokens", "cachedContentTokenCount":
		return &c.cacheRead
	case "cache_creation_input_tokens":
		return &c.cacheWrite
	case "ephemeral_5m_input_tokens":
		c.split = true
		return &c.write5m
	case "ephemeral_1h_input_tokens":
		c.split = true
		return &c.write1h
	case "reasoning_tokens", "thoughtsTokenCount":
		return &c.reasoning
	case "toolUsePromptTokenCount":
		return &c.toolInput
	}
	return nil
}

func (c *counts) set(name []byte, v jsonscan.Value) {
	if v.Kind == jsonscan.Null {
		return
	}
	to := c.field(string(name))
	if to == nil {
		return
	}
	n, ok := v.Int()
	if !ok || n < 0 || n > MaxTokens {
		c.absurd = true
		return
	}
	*to, c.known = n, true
}

// usage puts each token in its place, by the arithmetic of the provider's family.
func (c *counts) usage(family string) Usage {
	u := Usage{
		Known: c.known, Input: c.input, Output: c.output, CacheRead: c.cacheRead, Reasoning: c.reasoning,
		SaidInput: c.input, SaidOutput: c.output,
	}
	switch family {
	case FamilyAnthropic: // input_tokens does not have the cached ones
		u.CacheWrite5m = c.cacheWrite
		if c.split {
			u.CacheWrite5m, u.CacheWrite1h = c.write5m, c.write1h
			u.CacheWrite5m += max(0, c.cacheWrite-c.write5m-c.write1h)
		}
	case FamilyGoogle: // the prompt has the cached ones; thoughts are beside the candidates
		u.CacheRead = min(c.cacheRead, c.input)
		u.Input = c.input - u.CacheRead + c.toolInput
		u.Output = c.output + c.reasoning
	default: // the prompt has the cached ones, the completion the reasoning
		u.CacheRead = min(c.cacheRead, c.input)
		u.Input = c.input - u.CacheRead
		u.Reasoning = min(c.reasoning, c.output)
	}
	return u
}
