package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"capsem/core/fault"
)

// parse decodes one settings file strictly.
func parse(name string, text []byte) (*file, error) {
	var f file
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f)
	if err == nil {
		return &f, nil
	}
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
		first := &unknown.Errors[0]
		key := strings.Join(first.Key(), ".")
		line, _ := first.Position()
		return nil, fault.New(fault.Invalid, "%s: there is no setting %.80q", place(name, line), key).
			WithHint("the nearest is %s", nearest(key))
	}
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := wrong.Position()
		text := strings.TrimPrefix(wrong.Error(), "toml: ")
		if key := strings.Join(wrong.Key(), "."); key != "" {
			text = key + ": " + text
		}
		return nil, fault.Wrap(err, fault.Invalid, "%s: %.200s", place(name, line), text)
	}
	return nil, fault.Wrap(err, fault.Invalid, "%s: %.200s", name, err)
}

func place(name string, line int) string {
	if line == 0 {
		return name
	}
	return fmt.Sprintf("%s, line %d", name, line)
}

// keys lists every setting there is, dotted.
func keys() []string { return keysOf(reflect.TypeFor[file](), "") }

func keysOf(t reflect.Type, prefix string) []string {
	var out []string
	for f := range t.Fields() {
		key := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct {
			out = append(out, keysOf(f.Type, key+".")...)
		} else {
			out = append(out, key)
		}
	}
	return out
}

// nearest is the setting whose name differs least.
func nearest(key string) string {
	best, least := "", 1<<30
	for _, k := range keys() {
		if d := levenshtein.Distance(key, k, nil); d < least {
			best, least = k, d
		}
	}
	return best
}

// lineOf finds the line on which a setting is given a value; 0 when it cannot be found.
func lineOf(text []byte, key string) int {
	var p unstable.Parser
	p.Reset(text)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		offset := -1
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
			if offset < 0 {
				offset = int(it.Node().Raw.Offset)
			}
		}
		name := strings.Join(parts, ".")
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = name + "."
		case unstable.KeyValue:
			full := table + name
			if (full == key || strings.HasPrefix(key, full+".")) && offset >= 0 {
				return 1 + bytes.Count(text[:offset], []byte("\n"))
			}
		default: // comments
		}
	}
	return 0
}
