package mcp

import (
	"encoding/json"
	"strings"
)

// schemaOf is what of a JSON schema names the members of an object.
type schemaOf struct {
	Properties map[string]json.RawMessage `json:"properties"`
	Items      json.RawMessage            `json:"items"`
}

// Misspelt finds a member of the arguments whose name is that of one in the tool's schema but for upper and lower case. Many a server takes
// both for the same, and the policy does not: a rule about the one would not see the other.
func Misspelt(args, schema json.RawMessage) (name, meant string, found bool) {
	var s schemaOf
	if len(args) == 0 || json.Unmarshal(schema, &s) != nil {
		return "", "", false
	}
	var list []json.RawMessage
	if args[0] == '[' && len(s.Items) > 0 && json.Unmarshal(args, &list) == nil {
		for _, one := range list {
			if name, meant, found = Misspelt(one, s.Items); found {
				return name, meant, true
			}
		}
		return "", "", false
	}
	var members map[string]json.RawMessage
	if args[0] != '{' || len(s.Properties) == 0 || json.Unmarshal(args, &members) != nil {
		return "", "", false
	}
	for name, value := range members {
		if of, there := s.Properties[name]; there {
			if name, meant, found = Misspelt(value, of); found {
				return name, meant, true
			}
			continue
		}
		for meant := range s.Properties {
			if strings.EqualFold(name, meant) {
				return name, meant, true
			}
		}
	}
	return "", "", false
}
