package pipe

import (
	"mime"
	"net/http"
	"strings"
)

// IsText says whether an answer is text, or says nothing of what it is. Files that are not keep their lengths and ranges.
func IsText(h http.Header) bool {
	ct := h.Get("Content-Type")
	if ct == "" {
		return true
	}
	kind, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return true
	}
	if strings.HasPrefix(kind, "text/") || strings.HasPrefix(kind, "multipart/") || strings.HasPrefix(kind, "message/") {
		return true
	}
	for _, word := range []string{"json", "xml", "javascript", "ecmascript", "urlencoded", "yaml", "toml", "graphql", "csv", "grpc", "connect+"} {
		if strings.Contains(kind, word) {
			return true
		}
	}
	return false
}
