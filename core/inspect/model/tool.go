package model

import (
	"encoding/json"
	"hash/fnv"
	"strconv"

	"capsem/core/inspect/jsonscan"
)

const (
	// maxTools bounds the tool calls and the results that are kept of one request or answer.
	maxTools = 257
	// maxArguments bounds the arguments that are kept of one call.
	maxArguments = 16 << 10
)

// ToolCall is a tool that the model asked for.
type ToolCall struct {
	// ID is the provider's, or, where it gives none, made of the tool's name and arguments.
	ID string
	// Name is the tool's.
	Name string
	// Arguments are JSON, as much as is kept; empty where nothing is.
	Arguments string
}

// ToolResult is what a tool gave, as the model was told it.
type ToolResult struct {
	// ID is that of its call.
	ID string
	// Content is the beginning, as much as is kept.
	Content string
	// Failed says that the tool failed.
	Failed bool

	name string
}

// digest is made of values and where they are; the order in which they come makes no difference, so that it survives that a client
// writes the same arguments anew.
type digest uint64

func (d *digest) add(p jsonscan.Path, v jsonscan.Value) {
	h := fnv.New64a()
	for i := range p.Len() {
		if n := p.Index(i); n >= 0 {
			_, _ = h.Write(strconv.AppendInt([]byte{'['}, int64(n), 10))
		} else {
			_, _ = h.Write([]byte{'.'})
			_, _ = h.Write(p.Key(i))
		}
	}
	_, _ = h.Write([]byte{0, byte(v.Kind)})
	text := v.Text
	if v.Kind == jsonscan.Number {
		if f, err := strconv.ParseFloat(string(text), 64); err == nil {
			text = strconv.AppendFloat(nil, f, 'g', -1, 64)
		}
	}
	_, _ = h.Write(text)
	if v.Cut {
		_, _ = h.Write(strconv.AppendInt([]byte{0}, v.Size, 10))
	}
	*d += digest(h.Sum64())
}

func (d digest) id(name string) string {
	return bounded(name) + "#" + strconv.FormatUint(uint64(d), 36)
}

// rebuilt is JSON written again from what a scanner tells of it.
type rebuilt struct {
	text  []byte
	limit int
}

func (r *rebuilt) full() bool { return len(r.text) >= r.limit }

func (r *rebuilt) before(p jsonscan.Path) {
	if n := len(r.text); n > 0 && r.text[n-1] != '{' && r.text[n-1] != '[' {
		r.text = append(r.text, ',')
	}
	if p.Len() > 0 && p.Index(p.Len()-1) < 0 {
		r.quote(p.Last())
		r.text = append(r.text, ':')
	}
}

func (r *rebuilt) quote(text []byte) {
	q, err := json.Marshal(string(text))
	if err == nil {
		r.text = append(r.text, q...)
	}
}

func (r *rebuilt) begin(p jsonscan.Path, k jsonscan.Kind) {
	if r.full() {
		return
	}
	r.before(p)
	r.text = append(r.text, "{["[k-jsonscan.Object])
}

func (r *rebuilt) end(k jsonscan.Kind) {
	if !r.full() {
		r.text = append(r.text, "}]"[k-jsonscan.Object])
	}
}

func (r *rebuilt) value(p jsonscan.Path, v jsonscan.Value) {
	if r.full() {
		return
	}
	r.before(p)
	if v.Kind == jsonscan.String {
		r.quote(v.Text)
	} else {
		r.text = append(r.text, v.Text...)
	}
}

// kept is the beginning of a text that comes in pieces.
type kept struct {
	text  []byte
	limit int
}

func (k *kept) add(b []byte) {
	if room := k.limit - len(k.text); room > 0 {
		k.text = append(k.text, b[:min(room, len(b))]...)
	}
}
