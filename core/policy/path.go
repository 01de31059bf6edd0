package policy

import (
	"strings"
	"unicode/utf8"
)

const (
	maxPath  = 32 << 10
	maxQuery = 64 << 10
	// maxDecode bounds how often a path is decoded: one that is still encoded after that is not meant to be read.
	maxDecode = 4
)

// readings are the ways in which servers may understand one path, without repetition. The first is the plain one: decoded once, with
// encoded slashes kept as they are. The others decode those too, decode again, and drop ";" parameters.
type readings struct {
	form [3]string
	n    int
}

func (r *readings) add(form string) {
	for i := range r.n {
		if r.form[i] == form {
			return
		}
	}
	r.form[r.n] = form
	r.n++
}

// NormalPath gives the plain reading of a path as it stands in a request: decoded once (but for encoded slashes), without dot segments
// and doubled slashes. A path that no sound client sends is an error.
func NormalPath(raw string) (string, error) {
	r, err := readPath(raw)
	return r.form[0], err
}

func readPath(raw string) (r readings, err error) {
	if len(raw) > maxPath {
		return r, errRule("the path is longer than %d bytes", maxPath)
	}
	if raw == "" || raw[0] != '/' {
		return r, errRule("the path does not begin with a slash")
	}
	if cleanPath(raw) {
		r.add(raw)
		return r, nil
	}
	once, ok := unescape(raw, true, false)
	if !ok || strings.ContainsAny(raw, "?#") {
		return r, errRule("the path is not properly encoded")
	}
	r.add(resolve(once, false))
	all, _ := unescape(raw, false, false)
	r.add(resolve(strings.ReplaceAll(all, `\`, "/"), true))
	for n := 0; ; n++ {
		again, ok := unescape(all, false, true)
		if !ok || n == maxDecode {
			return r, errRule("the path is encoded in a way that only serves to disguise it")
		}
		if again == all {
			break
		}
		all = again
	}
	r.add(resolve(dropParams(strings.ReplaceAll(all, `\`, "/")), true))
	return r, nil
}

// cleanPath says that a path has one reading, itself.
func cleanPath(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f, c == '%', c == '\\', c == ';', c == '?', c == '#':
			return false
		case c == '/' && i+1 < len(s) && (s[i+1] == '/' || s[i+1] == '.'):
			return false
		}
	}
	return true
}

// unescape decodes percent-encoding once. It fails for what is not encoded properly (unless lenient) and for control bytes and broken
// UTF-8, which only serve to confuse.
func unescape(s string, keepSlash, lenient bool) (string, bool) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		encoded := c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2])
		if c == '%' && !encoded && !lenient {
			return "", false
		}
		if encoded {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			if keepSlash && (c == '/' || c == '\\') {
				out = append(out, '%', upper(s[i+1]), upper(s[i+2]))
				i += 2
				continue
			}
			i += 2
		}
		if c < ' ' || c == 0x7f {
			return "", false
		}
		out = append(out, c)
	}
	return string(out), utf8.Valid(out)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return lower(c) - 'a' + 10
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// resolve takes out empty and dot segments. mergeFirst decides what ".." takes away in "a//..": with it a, else the empty segment, which
// is what RFC 3986 says; servers differ.
func resolve(s string, mergeFirst bool) string {
	segments := strings.Split(s[1:], "/")
	kept := segments[:0]
	for i, seg := range segments {
		switch {
		case seg == ".." && len(kept) > 0:
			kept = kept[:len(kept)-1]
		case seg == "..", seg == ".":
		case seg == "" && mergeFirst:
		default:
			kept = append(kept, seg)
			continue
		}
		if i == len(segments)-1 {
			kept = append(kept, "") // a directory stays one
		}
	}
	var b strings.Builder
	for i, seg := range kept {
		if seg != "" || i == len(kept)-1 {
			b.WriteByte('/')
			b.WriteString(seg)
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// dropParams takes ";..." off every segment, as servlet containers do.
func dropParams(s string) string {
	if !strings.Contains(s, ";") {
		return s
	}
	segments := strings.Split(s, "/")
	for i, seg := range segments {
		segments[i], _, _ = strings.Cut(seg, ";")
	}
	return strings.Join(segments, "/")
}

// pair is one parameter of a query.
type pair struct {
	key, value string
}

// parseQuery splits a query at & (and at ";", as some servers do, when loose). What cannot be decoded is taken as it stands.
func parseQuery(raw string, loose bool) []pair {
	var out []pair
	for part := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == '&' || loose && r == ';' }) {
		key, value, _ := strings.Cut(part, "=")
		out = append(out, pair{queryText(key), queryText(value)})
	}
	return out
}

func queryText(s string) string {
	s = strings.ReplaceAll(s, "+", " ")
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
