package proto

import (
	"errors"
	"strings"
)

// AnswerRequest is the owner's answer to a question.
type AnswerRequest struct {
	// ID names the question. Answer is once, session, always or deny; Reach path or host, empty for path.
	ID     string `cbor:"id"`
	Answer string `cbor:"answer"`
	Reach  string `cbor:"reach,omitempty"`
	// By is the surface that it came from.
	By string `cbor:"by,omitempty"`
}

// Validate bounds every field; what they mean is up to the board.
func (a *AnswerRequest) Validate() error {
	for _, text := range []string{a.ID, a.Answer, a.Reach, a.By} {
		if len(text) > 64 || strings.ContainsAny(text, "\x00\n") {
			return errors.New("answer: a field is too long")
		}
	}
	return nil
}
