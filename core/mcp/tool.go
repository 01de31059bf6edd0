package mcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"

	"capsem/core/proto"
)

// Bounds of one tool.
const (
	// maxTool bounds its description by the server in bytes, maxText a title or description, maxDepth the nesting of its schemas.
	maxTool, maxText, maxDepth = 256 << 10, 32 << 10, 40
)

// Tool is a tool as its server describes it.
type Tool struct {
	// Name is the server's.
	Name string `json:"name"`
	// Title, Description, the schemas and Annotations are what clients and models are told.
	Title        string          `json:"title,omitempty"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"inputSchema"`
	OutputSchema json.RawMessage `json:"outputSchema,omitempty"`
	Annotations  json.RawMessage `json:"annotations,omitempty"`
}

// ParseTool reads one of the tools that a server lists. What is in it besides the fields above (icons, _meta) is left out: nobody
// approves what nobody sees.
func ParseTool(data []byte) (*Tool, error) {
	if len(data) > maxTool || proto.DeepJSON(data, maxDepth) {
		return nil, errors.New("its description is too large or nested too deep")
	}
	var t Tool
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, errors.New("its description is no tool")
	}
	if len(t.Title) > maxText || len(t.Description) > maxText {
		return nil, errors.New("its description is too long")
	}
	var schema struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(t.InputSchema, &schema) != nil || schema.Type != "object" {
		return nil, errors.New("its input is not described as an object")
	}
	for _, part := range []*json.RawMessage{&t.InputSchema, &t.OutputSchema, &t.Annotations} {
		canonical, err := Canonical(*part)
		if err != nil {
			return nil, err
		}
		*part = canonical
	}
	return &t, nil
}

// Canonical is the one way to write a JSON value: keys in order, each once, no space. Empty stays empty, and null is empty.
func Canonical(data []byte) (json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("its description is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("its description is not JSON")
	}
	if v == nil {
		return nil, nil
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode description: %w", err)
	}
	return out, nil
}

// Pin is the hash of all that clients are told of the tool.
func (t *Tool) Pin() string {
	h := blake3.New()
	for _, part := range [][]byte{
		[]byte(t.Name), []byte(t.Title), []byte(t.Description), t.InputSchema, t.OutputSchema, t.Annotations,
	} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		_, _ = h.Write(n[:]) // never fails
		_, _ = h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil)[:32])
}

// public is the tool as clients see it, under its full name.
func (t *Tool) public(full string) (json.RawMessage, error) {
	shown := *t
	shown.Name = full
	out, err := json.Marshal(&shown)
	if err != nil {
		return nil, fmt.Errorf("encode tool: %w", err)
	}
	return out, nil
}
