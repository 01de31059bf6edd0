package proto

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The names below are matched by hand: compiling patterns cost 11 to 22 ms at the start of each guest program under
// software emulation.

func isAlnum(c byte) bool {
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
}

// made reports whether s is of 1 to limit bytes, letters, digits and those in extra.
func made(s, extra string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte(extra, s[i]) < 0 {
			return false
		}
	}
	return true
}

// isShortName matches [A-Za-z0-9][A-Za-z0-9._+-]{0,63}.
func isShortName(s string) bool { return made(s, "._+-", 64) && isAlnum(s[0]) }

// isStageName matches [A-Za-z0-9_]{1,64}.
func isStageName(s string) bool { return made(s, "_", 64) }

// isHostName matches a label of RFC 1123 in lower case: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
func isHostName(s string) bool {
	return made(s, "-", 63) && s == strings.ToLower(s) && s[0] != '-' && s[len(s)-1] != '-'
}

// isZoneName matches one to three parts of [A-Za-z0-9_+-]{1,32} with slashes between.
func isZoneName(s string) bool {
	parts := strings.SplitN(s, "/", 4)
	if len(parts) > 3 {
		return false
	}
	for _, p := range parts {
		if !made(p, "_+-", 32) {
			return false
		}
	}
	return true
}

// isText reports whether s can cross the wire and then be a name, an argument or a path of Linux: CBOR and JSON texts are
// UTF-8, and no such string of Linux contains NUL.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// printable reports whether s is one line of text that does nothing to a terminal or the order of what is around it, and is
// not what decoding made of bytes that are none.
func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
