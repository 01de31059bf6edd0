package localapi

import (
	"encoding/json"
	"fmt"
	"strings"

	"capsem/core/api"
	"capsem/core/buildinfo"
)

// object is a JSON object of the document.
type object = map[string]any

// document makes the OpenAPI 3.1 document of the routes.
func document(routes []route) ([]byte, error) {
	types := &schemas{known: object{}}
	failure := types.of(api.ErrorBody{})
	routesByPath := object{}
	for _, r := range routes {
		item, ok := routesByPath[r.path].(object)
		if !ok {
			item = object{}
			routesByPath[r.path] = item
		}
		item[strings.ToLower(r.method)] = operation(r, types, failure)
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "capsem local API", "version": buildinfo.Version, "license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "HTTP on the unix socket run/service.sock of CAPSEM_HOME, for its owner alone. The Host of a request is localhost.",
		},
		"servers":    []any{object{"url": "http://" + host}},
		"paths":      routesByPath,
		"components": object{"schemas": types.known},
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("make OpenAPI document: %w", err)
	}
	return append(text, '\n'), nil
}

func operation(r route, types *schemas, failure object) object {
	replies := object{
		"200":     reply("OK", r.out, types),
		"default": object{"description": "an error", "content": object{"application/json": object{"schema": failure}}},
	}
	if r.upgrade != "" {
		replies["101"] = object{"description": "the connection is switched to " + r.upgrade}
		if r.out == nil {
			delete(replies, "200")
		}
	}
	op := object{"summary": r.summary, "operationId": operationID(r), "responses": replies, "parameters": parameters(r)}
	if r.in != nil {
		op["requestBody"] = object{"required": true, "content": content(r.in, types)}
	}
	return op
}

func operationID(r route) string {
	words := strings.FieldsFunc(r.path, func(c rune) bool { return strings.ContainsRune("/{}._-", c) })
	return strings.ToLower(r.method) + "_" + strings.Join(words, "_")
}

func reply(about string, out any, types *schemas) object {
	if out == nil {
		return object{"description": about}
	}
	return object{"description": about, "content": content(out, types)}
}

func content(v any, types *schemas) object {
	if media, ok := v.(string); ok {
		return object{media: object{"schema": object{"type": "string"}}}
	}
	return object{"application/json": object{"schema": types.of(v)}}
}

// parameters lists those of the path and of the query.
func parameters(r route) []any {
	list := []any{}
	for part := range strings.SplitSeq(r.path, "/") {
		if strings.HasPrefix(part, "{") {
			list = append(list, object{
				"name": strings.Trim(part, "{}"), "in": "path", "required": true, "schema": object{"type": "string"},
			})
		}
	}
	for _, q := range r.query {
		list = append(list, object{
			"name": q.name, "in": "query", "required": q.required, "description": q.about, "schema": object{"type": q.kind},
		})
	}
	return list
}
