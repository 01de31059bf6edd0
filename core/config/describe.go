package config

import (
	"bytes"
	"strings"
)

// Setting describes one key of a settings file.
type Setting struct {
	// Key is dotted, such as vm.resources.cpu_count.
	Key string
	// Type is what a value must be, with its limits; Default is as it would be written in a file.
	Type, Default string
	// Meaning is one or more sentences.
	Meaning string
}

// Describe lists every setting in the order in which it is checked. Nothing of it is written twice: the types are what the checks
// of a file hold its values to, the rest is of the embedded defaults and the comments there.
func Describe() ([]Setting, error) {
	f, err := parse("defaults.toml", defaults)
	if err != nil {
		return nil, err
	}
	var out []Setting
	c := checker{name: "defaults.toml", text: defaults, seen: func(key, kind, value string) {
		out = append(out, Setting{Key: key, Type: kind, Default: value, Meaning: commentAbove(defaults, lineOf(defaults, key))})
	}}
	(&Settings{}).check(&c, f)
	return out, c.err
}

// Defaults is what holds where no file says anything.
func Defaults() (*Settings, error) {
	s := &Settings{}
	err := s.apply("defaults.toml", defaults)
	return s, err
}

// commentAbove is the text of the comment lines right above a line, which is counted from 1.
func commentAbove(text []byte, line int) string {
	lines := bytes.Split(text, []byte("\n"))
	first := line - 1 // the line's own index, and that of what follows the comment
	for first > 0 && bytes.HasPrefix(lines[first-1], []byte("#")) {
		first--
	}
	var words []string
	for _, l := range lines[max(first, 0):max(line-1, 0)] {
		words = append(words, strings.Fields(strings.TrimPrefix(string(l), "#"))...)
	}
	return strings.Join(words, " ")
}
