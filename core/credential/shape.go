package credential

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"regexp"
	"strings"

	"github.com/zeebo/blake3"
)

// Shape is what a placeholder looks like: as long as what it stands for, beginning the same, and of the same letters.
type Shape struct {
	// Prefix is how it begins; it is no secret.
	Prefix string `json:"prefix"`
	// Alphabet is what the rest is drawn from. In Rest a * stands for such a letter, anything else for itself.
	Alphabet string `json:"alphabet"`
	Rest     string `json:"rest"`
}

const (
	digits  = "0123456789"
	lower   = "abcdefghijklmnopqrstuvwxyz"
	upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	joiners = "-_"
	// separators stay where they are: what is between them is random, where they are is not.
	separators = ".:/+=@ ~"
	// minRandom is how many random letters a placeholder has at least.
	minRandom = 8
)

// anyPrefix is how keys of kinds that are not known begin: a word or more before a hyphen or underscore.
var anyPrefix = regexp.MustCompile(`^([A-Za-z]{2,12}[-_]){1,3}`)

// shapeOf finds the shape of a value. No letter of the value but its prefix and separators is in it.
func shapeOf(prefixes []string, value string) Shape {
	s := Shape{}
	if claims := placeholderClaims(value); claims != "" {
		s.Prefix = claims
		return s.of(value[strings.LastIndexByte(value, '.')+1:])
	}
	for _, p := range prefixes {
		if strings.HasPrefix(value, p) {
			s.Prefix = p
			break
		}
	}
	if s.Prefix == "" && len(prefixes) == 0 {
		s.Prefix = anyPrefix.FindString(value)
	}
	if len(value)-len(s.Prefix) < minRandom {
		s.Prefix = ""
	}
	return s.of(value[len(s.Prefix):])
}

// of completes a shape for what follows the prefix.
func (s Shape) of(rest string) Shape {
	hexOnly := strings.Trim(rest, digits+"abcdef-") == ""
	for _, class := range []string{digits, lower, upper, joiners} {
		if strings.ContainsAny(rest, class) && (class != joiners || !hexOnly) {
			if class == lower && hexOnly {
				class = "abcdef"
			}
			s.Alphabet += class
		}
	}
	random := 0
	var b strings.Builder
	for _, c := range []byte(rest) {
		switch {
		case strings.IndexByte(separators, c) >= 0 || c == '-' && hexOnly:
			b.WriteByte(c)
		default:
			b.WriteByte('*')
			random++
		}
	}
	s.Rest = b.String()
	if random < minRandom { // mostly separators: then they are no structure
		s.Rest = strings.Repeat("*", max(len(rest), minRandom))
	}
	if len(s.Alphabet) < 16 {
		s.Alphabet = digits + lower
	}
	return s
}

// NewFamily makes the secret that the placeholders of a VM are derived from. A fork keeps its parent's: what runs in it has the
// placeholders in its memory.
func NewFamily() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// placeholder derives what stands for a text of a credential in the VMs of a family. Without the family nobody can tell it from a key.
func placeholder(family, name, field string, s Shape) string {
	key := blake3.Sum256([]byte("capsem placeholder\x00" + family))
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // a key of another length
	}
	for _, part := range []string{name, field, s.Prefix, s.Alphabet, s.Rest} {
		_, _ = h.WriteString(part + "\x00") // never fails
	}
	stream := h.Digest()
	var b strings.Builder
	b.WriteString(s.Prefix)
	for _, c := range []byte(s.Rest) {
		if c == '*' {
			c = draw(stream, s.Alphabet)
		}
		b.WriteByte(c)
	}
	return b.String()
}

// draw takes a letter of an alphabet, each as likely as any other.
func draw(stream io.Reader, alphabet string) byte {
	limit := 256 - 256%len(alphabet)
	for {
		var one [1]byte
		if _, err := io.ReadFull(stream, one[:]); err != nil {
			panic(err) // the stream has no end that anybody reaches
		}
		if int(one[0]) < limit {
			return alphabet[int(one[0])%len(alphabet)]
		}
	}
}

// farFuture is when placeholders that carry a time expire, in seconds since 1970: the host gets new tokens, not the guest.
const farFuture = 4102444800

// accountClaim is where OpenAI's tokens have the account, which its command line looks for.
const accountClaim = "https://api.openai.com/auth"

// placeholderClaims is the readable part of a placeholder for a JSON web token, with the dot behind it; "" if the value is none. Of its
// claims only those stay that a command line needs to work, and no address or name.
func placeholderClaims(value string) string {
	parts := strings.Split(value, ".")
	if len(parts) != 3 || !strings.HasPrefix(value, "eyJ") || len(parts[2]) < minRandom {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	if err != nil || json.Unmarshal(raw, &claims) != nil {
		return ""
	}
	kept := map[string]any{"exp": farFuture}
	if account, ok := claims[accountClaim].(map[string]any); ok {
		few := map[string]any{}
		for _, name := range []string{"chatgpt_account_id", "chatgpt_plan_type", "chatgpt_user_id", "user_id"} {
			if text, ok := account[name].(string); ok {
				few[name] = text
			}
		}
		kept[accountClaim] = few
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return ""
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(text) + "."
}
