package fault

import (
	"errors"
	"strings"
)

// Line is what a user reads of an error: the message of the Error it carries and what to do next, on one line,
// without control characters. It is empty for nil and for an Exit that was already explained.
func Line(err error) string {
	if err == nil {
		return ""
	}
	if ex, ok := errors.AsType[*Exit](err); ok {
		if ex.Err == nil {
			return ""
		}
		err = ex.Err
	}
	text := err.Error()
	if _, ok := errors.AsType[*Error](err); ok {
		_, message, hint := Public(err)
		text = message
		if hint != "" {
			text += "; " + hint
		}
	}
	return strings.Join(strings.Fields(strings.Map(printable, text)), " ")
}

// printable turns control characters into spaces: an error may quote a guest, and must not drive the terminal.
func printable(r rune) rune {
	if r < ' ' || (r >= 0x7f && r < 0xa0) {
		return ' '
	}
	return r
}
