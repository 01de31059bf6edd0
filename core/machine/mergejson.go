package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
)

// mergeJSON adds to a JSON object of the guest's what it lacks of one of ours: fields, in objects that both have too, and texts of lists.
// Nothing that is there changes. What is no object stays as it is.
func mergeJSON(theirs, ours []byte) (text []byte, changed bool) {
	into, from := object(theirs), object(ours)
	if into == nil || !merge(into, from) {
		return nil, false
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if enc.Encode(into) != nil {
		return nil, false
	}
	return b.Bytes(), true
}

// object reads one; nil if it is none. Numbers stay as they are written.
func object(text []byte) (out map[string]any) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&out) != nil {
		return nil
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil
	}
	return out
}

// merge goes as deep as what is ours.
func merge(into, from map[string]any) (changed bool) {
	for name, ours := range from {
		theirs, there := into[name]
		if !there {
			into[name], changed = ours, true
			continue
		}
		switch ours := ours.(type) {
		case map[string]any:
			if theirs, ok := theirs.(map[string]any); ok && merge(theirs, ours) {
				changed = true
			}
		case []any:
			list, ok := theirs.([]any)
			for _, one := range ours {
				if _, text := one.(string); ok && text && !slices.ContainsFunc(list, func(v any) bool { return v == one }) {
					list, changed = append(list, one), true
					into[name] = list
				}
			}
		}
	}
	return changed
}
