package cli

import (
	"strings"
	"testing"
)

func TestAConsoleBecomesPlainTextWithoutPartsOfItsSequences(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"plain":               {"one\n\ttwo é ✓\n", "one\n\ttwo é ✓\n"},
		"SeaBIOS":             {"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (1.16)\r\n", "SeaBIOS (1.16)\n"},
		"colours":             {"[  \x1b[0;32mOK\x1b[0m  ] up\r\n", "[  OK  ] up\n"},
		"colon parameters":    {"\x1b[38:2:1:2:3mred", "red"},
		"title":               {"a\x1b]0;root@vm: ~\x07b\x1b]8;;http://x\x1b\\c", "abc"},
		"charset":             {"\x1b(Bx\x1b#8y\x1b%Gz", "xyz"},
		"two characters":      {"\x1b7a\x1b8b\x1b=c\x1bMd", "abcd"},
		"device control":      {"a\x1bP+q544e\x1b\\b\x1b_x\x1b\\c", "abc"},
		"Linux palette":       {"\x1b]Rhello \x1b]P0112233world", "hello world"},
		"C1":                  {"a\u009b31mb\u009d0;t\u009cc\u0085d", "abcd"},
		"returns":             {"10%\r20%\r\n\r\r\nend\r", "10%\n20%\n\nend"},
		"return and erase":    {"wait\r\x1b[Kdone\r\n", "wait\ndone\n"},
		"unfinished":          {"\x1b[12\nnext\x1b]0;half\nlast\x1b", "\nnext\nlast"},
		"sequence in another": {"\x1b[3\x1b[1mx\x1b]0;t\x1b[1my", "xy"},
		"controls":            {"a\x00\x07\x08\x7fb", "ab"},
		"not UTF-8":           {"a\xffb", "a\uFFFDb"},
	} {
		for _, size := range []int{1, 2, 3, len(c.text)} {
			var got strings.Builder
			w := &plainWriter{w: &got}
			for rest := c.text; rest != ""; {
				n := min(size, len(rest))
				if wrote, err := w.Write([]byte(rest[:n])); wrote != n || err != nil {
					t.Fatalf("%s: wrote %d, %v", name, wrote, err)
				}
				rest = rest[n:]
			}
			if got.String() != c.want {
				t.Errorf("%s, %d bytes at once: %q, want %q", name, size, got.String(), c.want)
			}
		}
	}
}
