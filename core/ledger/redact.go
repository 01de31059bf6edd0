package ledger

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

// Redacted stands in the record where a credential was.
const Redacted = "[redacted]"

// plainHeaders are recorded as they are; of every other header only a hash of its value is.
var plainHeaders = []string{
	"accept", "content-encoding", "content-length", "content-type", "date", "host", "server", "transfer-encoding", "user-agent",
}

// credentialHeaders leave not even a hash.
var credentialHeaders = []string{
	"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token",
	"x-access-token", "x-amz-security-token", "x-csrf-token", "x-xsrf-token", "private-token", "job-token", "x-github-token",
	"x-vault-token", "www-authenticate", "proxy-authenticate", "authentication-info", "sec-websocket-key", "anthropic-api-key",
	"openai-api-key", "dd-api-key", "x-registry-auth", "x-functions-key", "ocp-apim-subscription-key",
}

// credentialWords mark a query parameter, or a header that is in no list, as one that carries a credential.
var credentialWords = []string{
	"token", "secret", "password", "passwd", "apikey", "api_key", "api-key", "access_key", "access-key", "signature", "credential", "authorization",
}

// credentialParameters are short names that mean the same when they are all of the name.
var credentialParameters = []string{"key", "sig", "code", "auth", "pwd", "jwt", "assertion", "sas", "state"}

// maxHeaderLines bounds how many header lines of one message are recorded.
const maxHeaderLines = 200

func isCredentialHeader(name string) bool {
	return slices.Contains(credentialHeaders, name) || containsAny(name, credentialWords)
}

func containsAny(s string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
}

// headers stores the header lines of a message, sorted by name: nine names with their values, credentials redacted, of all
// others a keyed hash that shows equal values as equal and nothing else.
func (c *cells) headers(h http.Header) {
	if len(h) == 0 {
		c.null()
		return
	}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	lines := 0
	for _, name := range names {
		lower := strings.ToLower(Clean(name, 128))
		for _, value := range h[name] {
			if lines++; lines > maxHeaderLines || b.Len() > MaxLong {
				c.bounded(b.String()+ellipsis, MaxLong)
				return
			}
			if b.Len() > 0 {
				b.WriteString("\r\n")
			}
			b.WriteString(oneLine(lower))
			b.WriteString(": ")
			b.WriteString(c.headerValue(lower, value))
		}
	}
	c.bounded(b.String(), MaxLong)
}

func (c *cells) headerValue(name, value string) string {
	switch {
	case slices.Contains(plainHeaders, name):
		return oneLine(RedactText(Clean(value, MaxText)))
	case isCredentialHeader(name):
		return Redacted
	}
	return "hash:" + hashValue(c.headerKey, value)
}

// hashValue gives 12 hex digits. It is keyed by the install, so that no one tries likely values against a copy of a record.
func hashValue(key *[32]byte, value string) string {
	if key == nil {
		sum := blake3.Sum256([]byte(value))
		return hex.EncodeToString(sum[:6])
	}
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		return "?"
	}
	_, _ = h.WriteString(value)
	var sum [32]byte
	return hex.EncodeToString(h.Sum(sum[:0])[:6])
}

// oneLine keeps a header value from looking like two.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		return r
	}, s)
}

// RedactQuery replaces the values of the parameters in a raw query that carry credentials.
func RedactQuery(raw string) string {
	if raw == "" {
		return ""
	}
	pairs := strings.FieldsFunc(raw, func(r rune) bool { return r == '&' || r == ';' })
	for i, pair := range pairs {
		name, _, has := strings.Cut(pair, "=")
		lower := strings.ToLower(name)
		if has && (slices.Contains(credentialParameters, lower) || containsAny(lower, credentialWords)) {
			pairs[i] = name + "=" + Redacted
		}
	}
	return RedactText(strings.Join(pairs, "&"))
}

// tokenShapes are how well-known credentials begin, and how many more characters make one.
var tokenShapes = []struct {
	prefix string
	least  int
}{
	{"sk-", 16},
	{"ghp_", 16},
	{"gho_", 16},
	{"ghu_", 16},
	{"ghs_", 16},
	{"ghr_", 16},
	{"github_pat_", 16},
	{"glpat-", 12},
	{"xoxb-", 10},
	{"xoxp-", 10},
	{"xoxa-", 10},
	{"AIza", 20},
	{"AKIA", 12},
	{"ASIA", 12},
	{"ya29.", 12},
	{"npm_", 20},
	{"pypi-", 20},
	{"hf_", 20},
	{"eyJ", 24},
}

// spokenBefore are words after which, and a space or colon, a credential follows.
var spokenBefore = []string{"Bearer ", "bearer ", "Basic ", "basic ", "PRIVATE KEY-----\n"}

// RedactText replaces what has the shape of a well-known credential. It is a net under the places that must not hold one, and
// no promise that free text is clean.
func RedactText(s string) string {
	for _, shape := range tokenShapes {
		if strings.Contains(s, shape.prefix) {
			s = redactAfter(s, shape.prefix, shape.least, false)
		}
	}
	for _, words := range spokenBefore {
		if strings.Contains(s, words) {
			s = redactAfter(s, words, 8, true)
		}
	}
	return s
}

// redactAfter replaces each word of at least so many token characters that follows prefix; the prefix goes too unless kept.
func redactAfter(s, prefix string, least int, keep bool) string {
	var b strings.Builder
	for {
		i := strings.Index(s, prefix)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := i + len(prefix)
		n := tokenLength(s[end:])
		if n < least || (!keep && i > 0 && isWordByte(s[i-1])) {
			b.WriteString(s[:end])
			s = s[end:]
			continue
		}
		if keep {
			i = end
		}
		b.WriteString(s[:i])
		b.WriteString(Redacted)
		s = s[end+n:]
	}
}

func tokenLength(s string) int {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return i
		}
	}
	return len(s)
}

// isWordByte is what a credential does not begin behind: "task-..." holds no "sk-...".
func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func isTokenByte(c byte) bool {
	return isWordByte(c) || c == '.' || c == '/' || c == '+' || c == '='
}

// redactURL redacts the query and the user part of a URL as text, whether or not it parses.
func redactURL(s string) string {
	head, query, has := strings.Cut(s, "?")
	if scheme, rest, ok := strings.Cut(head, "://"); ok {
		authority, path, slash := strings.Cut(rest, "/")
		if i := strings.LastIndexByte(authority, '@'); i >= 0 {
			authority = Redacted + authority[i:]
		}
		if head = scheme + "://" + authority; slash {
			head += "/" + path
		}
	}
	head = RedactText(head)
	if has {
		head += "?" + RedactQuery(query)
	}
	return head
}
