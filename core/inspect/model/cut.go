package model

import "encoding/json"

// Ending is what follows the events of a stream that is cut, so that the client knows that it has ended, and why: an error of the kind that
// the clients of this API expect in a stream. message is for people.
func (p *AnswerParser) Ending(message string) []byte {
	type object = map[string]any
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil { // only texts are in it
			return []byte("{}")
		}
		return b
	}
	refused := object{"message": message, "type": "permission_error", "param": nil, "code": "capsem_budget"}
	switch {
	case p.e.Family == FamilyAnthropic:
		body := text(object{"type": "error", "error": object{"type": "permission_error", "message": message}})
		return append(append([]byte("event: error\ndata: "), body...), "\n\n"...)
	case p.e.Family == FamilyGoogle:
		body := text(object{"error": object{"code": 403, "message": message, "status": "PERMISSION_DENIED"}})
		if p.form == asJSON { // one array
			return append(append([]byte(",\n"), body...), "]\n"...)
		}
		return append(append([]byte("data: "), body...), "\r\n\r\n"...)
	case p.e.Family == FamilyOllama && p.form == asJSON:
		return append(append([]byte("\n"), text(object{"error": message})...), '\n')
	case p.e.Shape == OpenAIResponses:
		body := text(object{"type": "error", "code": "capsem_budget", "message": message, "param": nil, "error": refused})
		return append(append([]byte("event: error\ndata: "), body...), "\n\n"...)
	}
	return append(append([]byte("data: "), text(object{"error": refused})...), "\n\ndata: [DONE]\n\n"...)
}
