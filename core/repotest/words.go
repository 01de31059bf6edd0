package repotest

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// forbidden are patterns of words that must not be in any file, with the reason. They are put together from parts so
// that this file does not match itself.
var forbidden = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{
		regexp.MustCompile(`(?i)[a-z0-9.-]*[a-z0-9]\.(debian` + `\.(org|net)|ubuntu` + `\.com|alpinelinux` + `\.org)\b`),
		"names a package mirror; use the sources the system is set up with",
	},
	{
		regexp.MustCompile(`(?i)\b(proxy\.golang` + `\.org|goproxy\.[a-z]+|registry\.(npmjs` + `\.org|npmmirror` + `\.com)|pythonhosted` + `\.org)`),
		"names a package registry; use the one the system is set up with",
	},
	{
		regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`),
		"leaves work undone: do it or open an issue",
	},
	{
		regexp.MustCompile(`/work/` + `(main|shared|\.library)|/fa` + `rm/`),
		"names a path of one machine",
	},
}

// notText are suffixes of files that are not searched.
var notText = map[string]bool{".zst": true, ".png": true, ".gz": true, ".ico": true, ".sum": true, ".woff2": true}

// Words checks every text file under root for forbidden words. The licence is left alone.
func Words(root string) ([]Finding, error) {
	var out []Finding
	err := Walk(root, func(name string) error {
		if notText[path.Ext(name)] || name == "LICENSE" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if !bytes.ContainsRune(text, 0) {
			out = append(out, wordsIn(name, string(text))...)
		}
		return nil
	})
	return out, err
}

func wordsIn(name, text string) []Finding {
	var out []Finding
	for i, line := range strings.Split(text, "\n") {
		for _, f := range forbidden {
			if m := f.pattern.FindString(line); m != "" {
				out = append(out, Finding{fmt.Sprintf("%s:%d", name, i+1), fmt.Sprintf("%q %s", m, f.why)})
			}
		}
	}
	return out
}
