// Package model understands what agents and models say to each other: it reads requests and answers of the APIs of Anthropic, OpenAI, Google
// and Ollama, and of whatever speaks like them, as they pass, in bounded memory, and says what is known of them: model, tokens, tool calls
// and results, why the model stopped. What is cut off or malformed yields what was read until then, and a note.
package model

import (
	"path"
	"slices"
	"strings"
)

// Shape is how a request and its answer are written.
type Shape uint8

// The shapes.
const (
	// Other is a request to a model's API that nothing more is known about: what it costs cannot be told.
	Other Shape = iota
	Anthropic
	AnthropicComplete
	AnthropicBatch
	OpenAIChat
	OpenAIResponses
	OpenAICompletions
	OpenAIEmbeddings
	Google
	GoogleEmbed
	OllamaChat
	OllamaGenerate
	OllamaEmbed
)

// The families of shapes, by what their clients expect of an error.
const (
	FamilyAnthropic = "anthropic"
	FamilyOpenAI    = "openai"
	FamilyGoogle    = "google"
	FamilyOllama    = "ollama"
)

// Endpoint is what host, method and path say of a request.
type Endpoint struct {
	// Provider is "anthropic", "openai", "google" where the host is theirs, "ollama", or such as "openai-compatible".
	Provider string
	// Family is whose errors and streams its clients understand.
	Family string
	Shape  Shape
	// Model and Stream are set where the path says them.
	Model  string
	Stream bool
	// Free says that it only counts: no tokens are used.
	Free bool
	// Vendor says that the host is the provider's own. On others the body has to look like it too.
	Vendor bool
}

// vendors are the hosts of providers.
var vendors = map[string]string{
	"api.anthropic.com":                 FamilyAnthropic,
	"api.openai.com":                    FamilyOpenAI,
	"chatgpt.com":                       FamilyOpenAI, // Codex with an account's sign-in
	"generativelanguage.googleapis.com": FamilyGoogle,
	"aiplatform.googleapis.com":         FamilyGoogle,
	"cloudcode-pa.googleapis.com":       FamilyGoogle,
}

// Vendor is the family of the provider whose own host it is, empty if it is none's.
func Vendor(host string) string {
	switch {
	case strings.HasSuffix(host, "-aiplatform.googleapis.com"):
		return FamilyGoogle
	case strings.HasSuffix(host, ".api.openai.com"), strings.HasSuffix(host, ".chatgpt.com"): // of a region
		return FamilyOpenAI
	}
	return vendors[host]
}

// shapes are the ends of paths.
var shapes = []struct {
	suffix, family string
	shape          Shape
	free           bool
}{
	{"/v1/messages", FamilyAnthropic, Anthropic, false},
	{"/v1/messages/count_tokens", FamilyAnthropic, Anthropic, true},
	{"/v1/messages/batches", FamilyAnthropic, AnthropicBatch, false},
	{"/v1/complete", FamilyAnthropic, AnthropicComplete, false},
	{"/chat/completions", FamilyOpenAI, OpenAIChat, false},
	{"/responses", FamilyOpenAI, OpenAIResponses, false},
	{"/responses/input_tokens", FamilyOpenAI, OpenAIResponses, true},
	{"/v1/completions", FamilyOpenAI, OpenAICompletions, false},
	{"/embeddings", FamilyOpenAI, OpenAIEmbeddings, false},
	{"/api/chat", FamilyOllama, OllamaChat, false},
	{"/api/generate", FamilyOllama, OllamaGenerate, false},
	{"/api/embed", FamilyOllama, OllamaEmbed, false},
	{"/api/embeddings", FamilyOllama, OllamaEmbed, false},
}

// verbs follow the model's name in Google's paths.
var verbs = map[string]struct {
	shape        Shape
	stream, free bool
}{
	"generateContent":        {Google, false, false},
	"streamGenerateContent":  {Google, true, false},
	"countTokens":            {Google, false, true},
	"embedContent":           {GoogleEmbed, false, false},
	"batchEmbedContents":     {GoogleEmbed, false, false},
	"batchGenerateContent":   {Other, false, false},
	"asyncBatchEmbedContent": {Other, false, false},
	"predict":                {Other, false, false},
	"predictLongRunning":     {Other, false, false},
	"rawPredict":             {Other, false, false},
	"streamRawPredict":       {Other, true, false},
}

// unpaid are the paths beneath /v1/ of Anthropic and OpenAI that use no tokens.
var unpaid = []string{"files", "uploads", "moderations", "conversations", "skills", "organizations"}

// ofAccounts are the ends of paths by which a model answers somebody who has signed in, beside those of shapes.
var ofAccounts = []string{"/responses/compact", "/conversation"}

// Identify says which API a request is for. host is as the proxy knows it, lower case; ok is false when it is for none.
func Identify(method, host, rawPath string) (e Endpoint, ok bool) {
	if method != "POST" {
		return Endpoint{}, false
	}
	vendor := Vendor(host)
	if len(rawPath) > maxPath {
		return unknown(vendor, ""), vendor != ""
	}
	p := path.Clean("/" + rawPath)
	if vendor == FamilyGoogle || vendor == "" {
		if e, ok := google(p, vendor != ""); ok {
			return e, true
		}
	}
	for _, s := range shapes {
		likeOpenAI := vendor == FamilyGoogle && s.family == FamilyOpenAI // Google's hosts speak that too
		if !strings.HasSuffix(p, s.suffix) || vendor != "" && vendor != s.family && !likeOpenAI {
			continue
		}
		e := Endpoint{Provider: s.family, Family: s.family, Shape: s.shape, Free: s.free, Vendor: vendor != ""}
		if likeOpenAI {
			e.Provider = vendor
		}
		if !e.Vendor && s.family != FamilyOllama {
			e.Provider += "-compatible"
		}
		return e, true
	}
	if vendor == FamilyGoogle {
		e := unknown(vendor, p)
		return e, googlePaid(host, p)
	}
	if vendor == FamilyOpenAI && slices.ContainsFunc(ofAccounts, func(end string) bool { return strings.HasSuffix(p, end) }) {
		return unknown(vendor, p), true
	}
	rest, v1 := strings.CutPrefix(p, "/v1/")
	if !v1 || vendor != FamilyAnthropic && vendor != FamilyOpenAI || strings.HasSuffix(p, "/cancel") {
		return Endpoint{}, false
	}
	first, _, _ := strings.Cut(rest, "/")
	if slices.Contains(unpaid, first) {
		return Endpoint{}, false
	}
	return unknown(vendor, p), true
}

// unknown is a request to a provider's own host that nothing is known about.
func unknown(vendor, p string) Endpoint {
	e := Endpoint{Provider: vendor, Family: vendor, Shape: Other, Vendor: true}
	if i := strings.LastIndexByte(p, ':'); i >= 0 {
		e.Model = modelIn(p[:i])
	}
	return e
}

// googlePaid says whether a request to one of Google's hosts may use tokens although its form is not known.
func googlePaid(host, p string) bool {
	switch {
	case strings.HasSuffix(p, ":cancel"), strings.HasPrefix(p, "/upload/"):
		return false
	case host == "generativelanguage.googleapis.com":
		return !strings.HasSuffix(p, "/files") && !strings.HasSuffix(p, "/files:register")
	case strings.HasSuffix(host, "aiplatform.googleapis.com"): // which does much else
		return strings.Contains(p, "/publishers/") || strings.Contains(p, "/endpoints/")
	}
	return false
}

// modelIn is the model that a path of Google's names.
func modelIn(p string) string {
	at := strings.LastIndex(p, "/models/")
	if at < 0 {
		return ""
	}
	return bounded(p[at+len("/models/"):])
}

// google reads .../models/NAME:verb, and .../v1internal:verb.
func google(p string, vendor bool) (Endpoint, bool) {
	i := strings.LastIndexByte(p, ':')
	if i < 0 {
		return Endpoint{}, false
	}
	verb, known := verbs[p[i+1:]]
	if !known || !vendor && verb.shape == Other {
		return Endpoint{}, false
	}
	e := Endpoint{Provider: FamilyGoogle, Family: FamilyGoogle, Shape: verb.shape, Stream: verb.stream, Free: verb.free, Vendor: vendor}
	if !vendor {
		e.Provider += "-compatible"
	}
	e.Model = modelIn(p[:i])
	return e, true
}

// maxPath bounds a path that is looked at.
const maxPath = 2048

// maxName bounds the name of a model, a tool, an id.
const maxName = 256

func bounded(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.Clone(strings.ToValidUTF8(s, "?"))
}
