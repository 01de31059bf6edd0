package localapi

import (
	"reflect"
	"strings"
)

// schemas collects the JSON schemas of Go types, the named structs under their names.
type schemas struct {
	known object
}

// of is the schema of a value's type.
func (s *schemas) of(v any) object { return s.typed(reflect.TypeOf(v)) }

func (s *schemas) typed(t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return s.typed(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.typed(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.typed(t.Elem())}
	case reflect.Struct:
		return s.named(t)
	default: // an interface: any value
		return object{}
	}
}

// named enters a struct under its name and refers to it.
func (s *schemas) named(t reflect.Type) object {
	if _, ok := s.known[t.Name()]; !ok {
		properties, required := object{}, []string{}
		entry := object{"type": "object", "properties": properties}
		s.known[t.Name()] = entry // first, since a type may contain itself
		s.fields(t, properties, &required)
		if len(required) > 0 {
			entry["required"] = required
		}
	}
	return object{"$ref": "#/components/schemas/" + t.Name()}
}

// fields enters the fields of a struct, those of embedded ones too, as encoding/json sees them.
func (s *schemas) fields(t reflect.Type, properties object, required *[]string) {
	for f := range t.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			s.fields(f.Type, properties, required)
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		properties[tag] = s.typed(f.Type)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			*required = append(*required, tag)
		}
	}
}
