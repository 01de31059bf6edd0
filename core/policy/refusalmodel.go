package policy

import "strings"

// methodPost is here because net/http is more than layer 0 should carry.
const methodPost = "POST"

// api is a family of model APIs, by the shape of its errors.
type api uint8

const (
	apiNone api = iota
	apiAnthropic
	apiOpenAI
	apiGoogle
)

// modelHosts are whole vendors; their web pages are left to wantsText. modelPaths are shapes that other hosts copy.
var (
	modelHosts = []struct {
		host HostPattern
		api  api
	}{
		{"api.anthropic.com", apiAnthropic},
		{"api.openai.com", apiOpenAI},
		{"generativelanguage.googleapis.com", apiGoogle},
		{"aiplatform.googleapis.com", apiGoogle},
		{"cloudcode-pa.googleapis.com", apiGoogle},
	}
	modelPaths = []struct {
		path string
		api  api
	}{
		{"/v1/messages", apiAnthropic},
		{"/v1/complete", apiAnthropic},
		{"/v1/chat/completions", apiOpenAI},
		{"/v1/responses", apiOpenAI},
		{"/v1/completions", apiOpenAI},
		{"/v1/embeddings", apiOpenAI},
	}
	googleVerbs = []string{":generateContent", ":streamGenerateContent", ":embedContent", ":batchEmbedContents", ":countTokens"}
)

// modelAPI tells from host and path whose error shape a client expects.
func modelAPI(req *Request) api {
	host, err := NormalHost(req.Host)
	if err != nil {
		return apiNone
	}
	for _, m := range modelHosts {
		if m.host.Match(host) {
			return m.api
		}
	}
	if req.Method != methodPost {
		return apiNone
	}
	path, err := NormalPath(req.Path)
	if err != nil {
		return apiNone
	}
	for _, m := range modelPaths {
		if strings.HasSuffix(path, m.path) || strings.Contains(path, m.path+"/") {
			return m.api
		}
	}
	for _, verb := range googleVerbs {
		if strings.HasSuffix(path, verb) {
			return apiGoogle
		}
	}
	return apiNone
}

// wantsText says that the sender is a browser or the like: it prefers HTML or text to JSON.
func wantsText(header map[string][]string) bool {
	var all []string
	for name, values := range header {
		if strings.EqualFold(name, "Accept") {
			all = append(all, values...)
		}
	}
	accept := strings.ToLower(strings.Join(all, ","))
	text := strings.Index(accept, "text/")
	json := strings.Index(accept, "json")
	return text >= 0 && (json < 0 || text < json)
}

type object map[string]any

func anthropicError(r Refused) any {
	return object{"type": "error", "error": object{"type": "permission_error", "message": r.sentence()}, "capsem": r}
}

func openAIError(r Refused) any {
	return object{"error": object{"message": r.sentence(), "type": "permission_error", "param": nil, "code": "capsem_policy"}, "capsem": r}
}

func googleError(r Refused) any {
	return object{"error": object{
		"code": 403, "message": r.sentence(), "status": "PERMISSION_DENIED",
		"details": []any{object{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "CAPSEM_POLICY", "domain": "capsem",
			"metadata": object{"rule": r.Rule, "reason": r.Reason},
		}},
	}, "capsem": r}
}
