package proto

import "strings"

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
