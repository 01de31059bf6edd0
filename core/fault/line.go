package fault

import (
	"errors"
	"regexp"
	"strings"
)

// Line is what a user reads of an error: the first line of the message of the Error it carries and what to do next, on one line,
// without control characters. It is empty for nil and for an Exit that was already explained.
func Line(err error) string {
	line, _ := lines(err)
	return line
}

// Text is Line and below it, each indented, the further lines of the message, such as the end of a guest's console.
func Text(err error) string {
	line, more := lines(err)
	var lineSb19 strings.Builder
	for text := range strings.Lines(more) {
		if text = Plain(text); text != "" {
			lineSb19.WriteString("\n  " + text)
		}
	}
	line += lineSb19.String()
	return line
}

func lines(err error) (line, more string) {
	if ex, ok := errors.AsType[*Exit](err); ok {
		err = ex.Err
	}
	if err == nil {
		return "", ""
	}
	text, hint := err.Error(), ""
	if _, ok := errors.AsType[*Error](err); ok {
		_, text, hint = Public(err)
		text, more, _ = strings.Cut(text, "\n")
	}
	if hint != "" {
		text += "; " + hint
	}
	return Plain(text), more
}

// sequence is a control sequence of a terminal (ECMA-48): CSI with its parameters, OSC up to its end, or two characters.
var sequence = regexp.MustCompile(`(\x1b\[|\x{9b})[0-?]*[\x20-\x2f]*[\x40-\x7e]|\x1b\][^\x00-\x1f]*(\x07|\x1b\\)?|\x1b[\x20-\x2f]*[\x30-\x7e]`)

// Plain makes one line of a text that may quote a guest, and must not drive the terminal: without control sequences, with runs of
// control characters and blanks as one space.
func Plain(text string) string {
	if strings.ContainsAny(text, "\x1b\u009b") {
		text = sequence.ReplaceAllString(text, "")
	}
	return strings.Join(strings.Fields(strings.Map(printable, text)), " ")
}

// printable turns control characters into spaces.
func printable(r rune) rune {
	if r < ' ' || (r >= 0x7f && r < 0xa0) {
		return ' '
	}
	return r
}
