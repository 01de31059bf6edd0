// Package detect looks for three things in what is allowed to pass: secrets on their way out, by how the keys of well-known providers look
// and by the owner's own; and in answers the marks of texts that want to give an agent orders. It looks at streams, piece by piece, at
// bounded cost, and only reports: what becomes of a finding is the policy's.
package detect

import (
	"encoding/base64"
	"encoding/json"
	"hash/crc32"
	"math"
	"regexp"
	"slices"
	"strings"
)

// maxToken bounds how far a token is followed from where it begins.
const maxToken = 2 << 10

// pattern is one kind of secret.
type pattern struct {
	// rule names it. It begins with one of words, and goes on as rest says, which is tied to its begin.
	rule  string
	words []string
	rest  *regexp.Regexp
	// homes are the hosts it belongs to: going there it is no finding.
	homes []string
	// entropy is how many bits a letter of what follows the word must carry at least.
	entropy float64
	// also is a further test of the whole token, such as a checksum.
	also func(token string) bool
	// quiet says that headers that carry sign-ins have it everywhere.
	quiet bool
}

// patterns are those that are known, each by what its provider says of its form.
var patterns = []pattern{
	{rule: "aws-access-key", words: []string{"AKIA", "ASIA"}, rest: regexp.MustCompile(`^(?:AKIA|ASIA)[A-Z2-7]{16}\b`), homes: []string{"amazonaws.com"}, entropy: 2.8},
	{
		rule: "github-token", words: []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_"}, rest: regexp.MustCompile(`^gh[pousr]_[A-Za-z0-9]{36}\b`),
		homes: []string{"github.com", "githubusercontent.com"}, entropy: 3.5, also: githubChecksum,
	},
	{
		rule: "github-fine-grained-token", words: []string{"github_pat_"}, rest: regexp.MustCompile(`^github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b`),
		homes: []string{"github.com", "githubusercontent.com"}, entropy: 4,
	},
	{rule: "gitlab-token", words: []string{"glpat-"}, rest: regexp.MustCompile(`^glpat-[A-Za-z0-9_-]{20,64}(?:\.[a-z0-9.]{6,20})?`), homes: []string{"gitlab.com"}, entropy: 3.2},
	{rule: "slack-token", words: []string{"xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-"}, rest: regexp.MustCompile(`^xox[bpars]-[0-9]{8,14}-[0-9A-Za-z-]{16,128}`), homes: []string{"slack.com"}, entropy: 3},
	{rule: "slack-app-token", words: []string{"xapp-"}, rest: regexp.MustCompile(`^xapp-[0-9]-[A-Z0-9]{8,14}-[0-9]{8,16}-[a-f0-9]{32,64}\b`), homes: []string{"slack.com"}, entropy: 3},
	{rule: "stripe-key", words: []string{"sk_live_", "rk_live_"}, rest: regexp.MustCompile(`^[sr]k_live_[A-Za-z0-9]{24,120}\b`), homes: []string{"stripe.com"}, entropy: 3.5},
	{rule: "google-api-key", words: []string{"AIza"}, rest: regexp.MustCompile(`^AIza[A-Za-z0-9_-]{35}(?:[^A-Za-z0-9_-]|$)`), homes: []string{"googleapis.com", "google.com"}, entropy: 3.7},
	{rule: "anthropic-key", words: []string{"sk-ant-"}, rest: regexp.MustCompile(`^sk-ant-[a-z]{3,5}[0-9]{2}-[A-Za-z0-9_-]{80,120}`), homes: []string{"anthropic.com", "claude.ai", "claude.com"}, entropy: 4},
	{
		rule: "openai-key", words: []string{"sk-proj-", "sk-svcacct-", "sk-admin-"}, rest: regexp.MustCompile(`^sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,120}T3BlbkFJ[A-Za-z0-9_-]{20,120}`),
		homes: []string{"openai.com", "chatgpt.com"}, entropy: 4,
	},
	{rule: "npm-token", words: []string{"npm_"}, rest: regexp.MustCompile(`^npm_[A-Za-z0-9]{36}\b`), homes: []string{"npmjs.org", "npmjs.com"}, entropy: 3.5, also: npmChecksum},
	{rule: "private-key", words: []string{"-----BEGIN "}, rest: regexp.MustCompile(`^-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])+(?:[A-Za-z0-9+/=]{24}|Proc-Type: |Version: |Comment: )`)},
	{rule: "jwt", words: []string{"eyJh", "eyJ0", "eyJr", "eyJj"}, rest: regexp.MustCompile(`^eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}`), also: isJWT, quiet: true},
}

// Rules lists the kinds of secrets that are known.
func Rules() []string {
	var out []string
	for i := range patterns {
		out = append(out, patterns[i].rule)
	}
	return out
}

// match gives the token at the begin of a text, "" if it is none. A text that has been cut may go on to be one.
func (p *pattern) match(text []byte) string {
	m := p.rest.Find(text[:min(len(text), maxToken)])
	if m == nil {
		return ""
	}
	token := strings.TrimRight(string(m), " \t\r\n\"'`,;:()[]{}<>")
	word := ""
	for _, w := range p.words {
		if strings.HasPrefix(token, w) {
			word = w
		}
	}
	body := token[len(word):]
	if p.entropy > 0 && (entropy(body) < p.entropy || placeholderWord(body)) {
		return ""
	}
	if p.also != nil && !p.also(token) {
		return ""
	}
	return token
}

// entropy is how many bits a letter of a text carries, by how often each is in it.
func entropy(s string) float64 {
	var count [256]int
	for i := range len(s) {
		count[s[i]]++
	}
	bits := 0.0
	for _, n := range &count {
		if n > 0 {
			p := float64(n) / float64(len(s))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// placeholderWord finds what people write in examples.
func placeholderWord(s string) bool {
	s = strings.ToLower(s)
	for _, w := range []string{"example", "xxxxx", "your", "placeholder", "redacted", "12345678", "abcdefgh", "aaaaa", "00000", "dummy", "changeme"} {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// githubChecksum holds a token to its last six letters, which are the CRC-32 of those before in base 62.
func githubChecksum(token string) bool { return checksum62(token, 4) }

// npmChecksum is the same; the word counts as little.
func npmChecksum(token string) bool { return checksum62(token, 4) }

func checksum62(token string, word int) bool {
	if len(token) < word+7 {
		return false
	}
	sum := crc32.ChecksumIEEE([]byte(token[word : len(token)-6]))
	want := make([]byte, 6)
	for i := range slices.Backward(want) {
		want[i] = base62[sum%62]
		sum /= 62
	}
	return string(want) == token[len(token)-6:]
}

// isJWT decodes the head of a JSON web token: it must name how it is signed.
func isJWT(token string) bool {
	head, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	var h struct {
		Algorithm string `json:"alg"`
	}
	return err == nil && json.Unmarshal(raw, &h) == nil && h.Algorithm != "" && !strings.EqualFold(h.Algorithm, "none")
}

// athome says whether a host is one that a secret belongs to.
func (p *pattern) athome(host string) bool {
	return slices.ContainsFunc(p.homes, func(h string) bool { return host == h || strings.HasSuffix(host, "."+h) })
}
