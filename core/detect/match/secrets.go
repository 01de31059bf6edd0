package match

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// MinSecret and MaxSecret bound what Secrets looks for: shorter texts are found by accident.
const MinSecret, MaxSecret = 8, 4 << 10

// Form is how a secret was written where it was found.
type Form int

// The forms.
const (
	// Plain is as it is.
	Plain Form = iota
	// Escaped is percent-encoded or with JSON's escapes, at least in part.
	Escaped
	// Base64 is in base64, of either alphabet, at any place in what was encoded, over line ends too.
	Base64
)

// String is for the record.
func (f Form) String() string { return [...]string{"plain", "escaped", "base64"}[f] }

// Secrets are texts to be found in all their forms.
type Secrets struct {
	plain  *Set
	packed *Set
	// within are the bytes that patterns and escapes have, between one that is not among them, if there is; shortest is the shortest pattern.
	within   [256]bool
	between  byte
	shortest int
	// codes says for each pattern of packed what it is.
	codes []code
	count int
}

// code is one way in which base64 has a secret: it begins skip bytes after a group of three.
type code struct {
	secret, skip int
	url          bool
}

// NewSecrets makes a set of secrets. Each is named by its place in the list.
func NewSecrets(secrets [][]byte) (*Secrets, error) {
	s := &Secrets{count: len(secrets)}
	var packed [][]byte
	for i, secret := range secrets {
		if len(secret) < MinSecret || len(secret) > MaxSecret {
			return nil, fmt.Errorf("look for secrets: number %d has %d bytes, not %d to %d", i, len(secret), MinSecret, MaxSecret)
		}
		for skip := range 3 {
			std, url := inner(secret, skip, false), inner(secret, skip, true)
			packed, s.codes = append(packed, std), append(s.codes, code{i, skip, false})
			if !bytes.Equal(std, url) {
				packed, s.codes = append(packed, url), append(s.codes, code{i, skip, true})
			}
		}
	}
	var err error
	if s.plain, err = NewSet(secrets); err != nil {
		return nil, err
	}
	if s.packed, err = NewSet(packed); err != nil {
		return nil, err
	}
	s.prepare()
	return s, nil
}

// Shortest is the length of the shortest text that may have one in it, in any form; 0 if there are none.
func (s *Secrets) Shortest() int { return s.shortest }

// Len is how many there are.
func (s *Secrets) Len() int { return s.count }

// inner is what base64 makes of a secret that begins skip bytes after a group, without the digits that other bytes share.
func inner(secret []byte, skip int, url bool) []byte {
	enc := base64.RawStdEncoding
	if url {
		enc = base64.RawURLEncoding
	}
	text := enc.EncodeToString(append(make([]byte, skip), secret...))
	return []byte(text[(skip*8+5)/6 : (skip+len(secret))*8/6])
}

// Instead gives what to write in place of a hit so that other stands there, in the form in which the secret did. What is to be read as
// JSON or as a part of a URL must be plain in itself.
func (h *Hit) Instead(other string) []byte {
	if h.Form != Base64 {
		return []byte(other)
	}
	if len(other) != h.length {
		return []byte(strings.Repeat("A", len(h.Raw))) // the bytes beside it would move
	}
	return inner([]byte(other), h.code.skip, h.code.url)
}

// Hit is a secret that was found.
type Hit struct {
	// Secret is which, Form how it is written, Raw as it is in the text; it is good until the call returns.
	Secret int
	Form   Form
	Raw    []byte
	// Before and After are the text around it, as far as it is at hand.
	Before, After []byte

	code   code
	length int
}
