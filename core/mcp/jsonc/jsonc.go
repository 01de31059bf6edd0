// Package jsonc edits settings files that people wrote: JSON, with the comments and trailing commas that some editors allow. One
// member is set or removed; every other byte stays.
package jsonc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxSize bounds a file in bytes, maxDepth its nesting.
	MaxSize  = 32 << 20
	maxDepth = 200
)

// Errors of files that are left alone.
var (
	// ErrSyntax is a file that is not JSON, comments and trailing commas aside.
	ErrSyntax = errors.New("it is not JSON")
	// ErrShape is a file in which something on the way to the member is no object, or is there twice.
	ErrShape = errors.New("it has another shape than expected")
)

// Standard is text as plain JSON of the same length: comments, a byte order mark and trailing commas are blanks. Empty text, or
// only comments, is all blank.
func Standard(text []byte) ([]byte, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrSyntax, MaxSize)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: it is not UTF-8", ErrSyntax)
	}
	out := bytes.Clone(text)
	if bytes.HasPrefix(out, []byte("\xef\xbb\xbf")) {
		blank(out[:3])
	}
	comma, depth := -1, 0
	for i := 0; i < len(out); {
		switch b := out[i]; {
		case b == '"':
			n := stringLen(out[i:])
			i, comma = i+n, -1
			continue
		case b == '/':
			n, err := commentLen(out[i:])
			if err != nil {
				return nil, err
			}
			blank(out[i : i+n])
			i += n
			continue
		case b == ',':
			comma = i
		case b == '}' || b == ']':
			if comma >= 0 {
				out[comma] = ' '
			}
			comma = -1
			depth--
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return nil, fmt.Errorf("%w: it is nested too deep", ErrSyntax)
			}
			comma = -1
		case b != ' ' && b != '\t' && b != '\r' && b != '\n':
			comma = -1
		}
		i++
	}
	if !empty(out) && !json.Valid(out) {
		return nil, ErrSyntax
	}
	return out, nil
}

// empty reports whether there is nothing but JSON's blanks.
func empty(plain []byte) bool { return len(bytes.Trim(plain, " \t\r\n")) == 0 }

// blank makes spaces of all but line ends.
func blank(b []byte) {
	for i := range b {
		if b[i] != '\n' && b[i] != '\r' {
			b[i] = ' '
		}
	}
}

// stringLen is the length of the string that b begins with, or of b if it does not end.
func stringLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

func commentLen(b []byte) (int, error) {
	switch {
	case bytes.HasPrefix(b, []byte("//")):
		if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
			return i, nil
		}
		return len(b), nil
	case bytes.HasPrefix(b, []byte("/*")):
		if i := bytes.Index(b[2:], []byte("*/")); i >= 0 {
			return i + 4, nil
		}
	}
	return 0, fmt.Errorf("%w: a stray slash", ErrSyntax)
}

// Decode decodes text into v; text without anything in it leaves v alone.
func Decode(text []byte, v any) error {
	plain, err := Standard(text)
	if err != nil || empty(plain) {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("%w: %w", ErrShape, err)
	}
	return nil
}

// member is a name and a value of an object, by their places in the text.
type member struct {
	key             string
	start           int
	value, valueEnd int
}

// object is the members of an object and the places after its opening and before its closing brace.
type object struct {
	members     []member
	open, close int
}

// scan reads the object that begins at the given place of plain, valid JSON.
func scan(plain []byte, at int) (object, error) {
	at = skipBlank(plain, at)
	if at >= len(plain) || plain[at] != '{' {
		return object{}, fmt.Errorf("%w: what should be an object is none", ErrShape)
	}
	o := object{open: at + 1}
	for at = skipBlank(plain, at+1); plain[at] != '}'; at = skipBlank(plain, at) {
		if plain[at] == ',' {
			at++
			continue
		}
		m := member{start: at}
		n := stringLen(plain[at:])
		if err := json.Unmarshal(plain[at:at+n], &m.key); err != nil {
			return o, fmt.Errorf("%w: %w", ErrSyntax, err)
		}
		m.value = skipBlank(plain, skipBlank(plain, at+n)+1) // past the colon
		m.valueEnd = valueEnd(plain, m.value)
		at = m.valueEnd
		o.members = append(o.members, m)
	}
	o.close = at
	return o, nil
}

func skipBlank(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\r' || b[at] == '\n') {
		at++
	}
	return at
}

// valueEnd is the place after the value at a place of valid JSON.
func valueEnd(b []byte, at int) int {
	for depth := 0; at < len(b); {
		switch b[at] {
		case '"':
			at += stringLen(b[at:])
		case '{', '[':
			depth++
			at++
		case '}', ']':
			depth--
			at++
		default:
			for at < len(b) && strings.IndexByte(" \t\r\n,]}[{\"", b[at]) < 0 {
				at++
			}
			if depth > 0 {
				for at < len(b) && strings.IndexByte(" \t\r\n,:", b[at]) >= 0 {
					at++
				}
			}
		}
		if depth == 0 {
			break
		}
	}
	return at
}

// find is the index of a member, -1 where there is none.
func (o object) find(key string) (int, error) {
	at := -1
	for i, m := range o.members {
		if m.key != key {
			continue
		}
		if at >= 0 {
			return -1, fmt.Errorf("%w: %q is there twice", ErrShape, key)
		}
		at = i
	}
	return at, nil
}

// Set makes the member at path, whose parents are objects that are made if need be, have value.
func Set(text []byte, path []string, value any) ([]byte, error) {
	plain, err := Standard(text)
	if err != nil {
		return nil, err
	}
	if empty(plain) {
		style := styleOf(text)
		head := bytes.TrimRight(text, " \t\r\n")
		if len(head) > 0 {
			head = append(slices.Clip(head), style.newline...)
		}
		inner, err := style.render(nest(path, value), "")
		return append(append(head, inner...), style.newline...), err
	}
	o, err := scan(plain, 0)
	for depth := 0; ; depth++ {
		if err != nil {
			return nil, err
		}
		i, err := o.find(path[depth])
		if err != nil {
			return nil, err
		}
		if i < 0 {
			out, err := insert(text, plain, o, path[depth], nest(path[depth+1:], value))
			return checked(text, out, path, err)
		}
		m := o.members[i]
		if depth == len(path)-1 {
			inner, err := styleOf(text).render(value, indentAt(text, m.start))
			return checked(text, slices.Concat(text[:m.value], inner, text[m.valueEnd:]), path, err)
		}
		o, err = scan(plain, m.value)
		if err != nil {
			return nil, err
		}
	}
}

// nest wraps a value in objects.
func nest(path []string, value any) any {
	for _, key := range slices.Backward(path) {
		value = map[string]any{key: value}
	}
	return value
}

// insert adds a member at the end of an object.
func insert(text, plain []byte, o object, key string, value any) ([]byte, error) {
	style := styleOf(text)
	outer := indentAt(text, o.close)
	inner := outer + style.indent
	if n := len(o.members); n > 0 && onOwnLine(text, o.members[n-1].start) {
		inner = indentAt(text, o.members[n-1].start)
	}
	name, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("encode name: %w", err)
	}
	body, err := style.render(value, inner)
	if err != nil {
		return nil, err
	}
	at := o.open + len(bytes.TrimRight(text[o.open:o.close], " \t\r\n")) // after the last member and what is said of it
	before := text[o.open:at]
	if n := len(o.members); n > 0 {
		end := o.members[n-1].valueEnd
		if before = slices.Clone(text[o.open:end]); !trailingComma(text, plain, end, o.close) {
			before = append(before, ',')
		}
		before = append(before, text[end:at]...)
	}
	after := text[at:o.close]
	if !bytes.ContainsRune(after, '\n') {
		after = []byte(style.newline + outer)
	}
	return slices.Concat(text[:o.open], before, []byte(style.newline+inner), name, []byte(": "), body, after, text[o.close:]), nil
}

// trailingComma reports whether there is a comma between the places that plain has as a blank.
func trailingComma(text, plain []byte, from, to int) bool {
	return commaIn(text, plain, from, to) >= 0
}

// commaIn is the place of the comma between two places that is in no comment, -1 where there is none. A comment is blank in plain,
// and so is a trailing comma; only the latter stands alone.
func commaIn(text, plain []byte, from, to int) int {
	for i := from; i < to; {
		switch {
		case plain[i] == ',' || text[i] == ',':
			return i
		case text[i] == '/':
			n, err := commentLen(text[i:to])
			if err != nil {
				return -1
			}
			i += n
		default:
			i++
		}
	}
	return -1
}

// Remove removes the member at path; text is returned as it is when there is none.
func Remove(text []byte, path []string) ([]byte, error) {
	plain, err := Standard(text)
	if err != nil || empty(plain) {
		return text, err
	}
	o, err := scan(plain, 0)
	for depth := 0; ; depth++ {
		if err != nil {
			return nil, err
		}
		i, err := o.find(path[depth])
		if err != nil {
			return nil, err
		}
		if i < 0 {
			return text, nil
		}
		if depth == len(path)-1 {
			return checked(text, cut(text, plain, o, i), path, nil)
		}
		if o, err = scan(plain, o.members[i].value); err != nil {
			return nil, err
		}
	}
}

// cut takes a member out, with the comma that is no longer needed and the lines that were its own.
func cut(text, plain []byte, o object, i int) []byte {
	m := o.members[i]
	next := o.close
	if i+1 < len(o.members) {
		next = o.members[i+1].start
	}
	end := m.valueEnd
	if at := commaIn(text, plain, end, next); at >= 0 {
		end = at + 1
	}
	begin := m.start
	for begin > o.open && (text[begin-1] == ' ' || text[begin-1] == '\t') {
		begin--
	}
	if begin > 0 && text[begin-1] == '\n' && (end < len(text) && (text[end] == '\n' || text[end] == '\r')) {
		if begin--; begin > o.open && text[begin-1] == '\r' {
			begin--
		}
	}
	head := slices.Clone(text[:begin])
	if i > 0 && i == len(o.members)-1 && end == m.valueEnd { // the last one, and no comma of its own: the one before it goes
		if at := commaIn(text, plain, o.members[i-1].valueEnd, m.start); at >= 0 && at < begin {
			head = slices.Concat(text[:at], text[at+1:begin])
		}
	}
	return append(head, text[end:]...)
}

// checked makes sure that an edit has changed what it should and nothing else.
func checked(before, after []byte, path []string, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	var was, is map[string]any
	if err := errors.Join(Decode(before, &was), Decode(after, &is)); err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(without(was, path), without(is, path)) {
		return nil, fmt.Errorf("%w: it cannot be changed without changing more", ErrShape)
	}
	return after, nil
}

// without is a tree without the member at path, and without objects on the way that have nothing else in them.
func without(tree map[string]any, path []string) map[string]any {
	if tree == nil {
		return map[string]any{}
	}
	child, ok := tree[path[0]].(map[string]any)
	if len(path) == 1 || (ok && len(without(child, path[1:])) == 0) {
		delete(tree, path[0])
	}
	return tree
}

// style is how a file is written.
type style struct{ indent, newline string }

func styleOf(text []byte) style {
	s := style{"  ", "\n"}
	if bytes.Contains(text, []byte("\r\n")) {
		s.newline = "\r\n"
	}
	for line := range bytes.Lines(text) {
		rest := bytes.TrimLeft(line, " \t")
		if n := len(line) - len(rest); n > 0 && len(rest) > 0 && rest[0] == '"' {
			s.indent = string(line[:n])
			break
		}
	}
	return s
}

// render is a value in this style, its further lines indented by prefix.
func (s style) render(value any, prefix string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(prefix, s.indent)
	if err := enc.Encode(value); err != nil {
		return nil, fmt.Errorf("encode value: %w", err)
	}
	return bytes.ReplaceAll(bytes.TrimRight(b.Bytes(), "\n"), []byte("\n"), []byte(s.newline)), nil
}

// indentAt is the blanks that begin the line of a place.
func indentAt(text []byte, at int) string {
	line := text[bytes.LastIndexByte(text[:at], '\n')+1:]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// onOwnLine reports whether only blanks are before a place in its line.
func onOwnLine(text []byte, at int) bool {
	line := text[bytes.LastIndexByte(text[:at], '\n')+1 : at]
	return len(bytes.TrimSpace(line)) == 0
}
