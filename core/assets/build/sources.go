package build

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"capsem/core/fault"
)

// mirrors are where packages come from: the archive, and its security updates if this machine gets them.
type mirrors struct{ main, security string }

// findMirrors takes the override, else what this machine's own apt uses.
func findMirrors(override, aptDir string) (mirrors, error) {
	if override != "" {
		return mirrors{main: override}, nil
	}
	var m mirrors
	var files []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.sources", "sources.list.d/*.list"} {
		found, err := filepath.Glob(filepath.Join(aptDir, pattern))
		if err != nil {
			return m, err //nolint:wrapcheck // the patterns are ours
		}
		files = append(files, found...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return m, fault.Wrap(err, fault.Unavailable, "cannot read %s", name)
		}
		m.take(name, string(text))
	}
	if m.main == "" {
		return m, fault.New(fault.Unavailable, "no Debian mirror is known: this machine's apt has none").
			WithHint("set CAPSEM_DEBIAN_MIRROR to the address of one")
	}
	return m, nil
}

// take looks through one file of apt's sources, in either format.
func (m *mirrors) take(name, text string) {
	if strings.HasSuffix(name, ".sources") {
		for stanza := range strings.SplitSeq(text, "\n\n") {
			fields := stanzaFields(stanza)
			for uri := range strings.FieldsSeq(fields["uris"]) {
				m.entry(fields["types"], uri, strings.Fields(fields["suites"]), strings.Fields(fields["components"]))
			}
		}
		return
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if words := strings.Fields(rest); len(words) >= 3 {
			m.entry(kind, words[0], words[1:2], words[2:])
		}
	}
}

// stanzaFields reads "Name: value" lines; lines that begin with a blank go on the one before.
func stanzaFields(stanza string) map[string]string {
	out := map[string]string{}
	last := ""
	lines := bufio.NewScanner(strings.NewReader(stanza))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			out[last] += " " + strings.TrimSpace(line)
		default:
			if key, value, ok := strings.Cut(line, ":"); ok {
				last = strings.ToLower(strings.TrimSpace(key))
				out[last] = strings.TrimSpace(value)
			}
		}
	}
	return out
}

// codenames are Debian's releases whose sources tell where the archive is.
var codenames = []string{"bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable"}

// entry takes one source if it is Debian's own.
func (m *mirrors) entry(kind, uri string, suites, components []string) {
	if !strings.Contains(kind, "deb") || kind == "deb-src" || !strings.Contains(strings.Join(components, " "), "main") {
		return
	}
	for _, suite := range suites {
		for _, name := range codenames {
			switch {
			case suite == name && m.main == "":
				m.main = uri
			case suite == name+"-security" && m.security == "":
				m.security = uri
			}
		}
	}
}

// lines are the sources of the image, in apt's one-line format.
func (m mirrors) lines() []string {
	out := []string{"deb " + m.main + " " + suite + " main"}
	if m.security != "" {
		out = append(out, "deb "+m.security+" "+suite+"-security main")
	}
	return out
}
