package policy

import (
	"encoding/json"

	"cel.dev/cel-go/common/types"

	"capsem/core/proto"
)

const (
	// maxArgs bounds the arguments of a call that a "when" can look at, in bytes, and maxArgsDepth their nesting. Others are doubt.
	maxArgs, maxArgsDepth = 64 << 10, 32
)

// arguments are those of a call of a tool, for "when". Such as it cannot look at are not there, which is an error of the expression.
func arguments(data []byte) (any, bool) {
	if len(data) == 0 || string(data) == "null" {
		return types.DefaultTypeAdapter.NativeToValue(map[string]any{}), true
	}
	if len(data) > maxArgs || proto.DeepJSON(data, maxArgsDepth) {
		return nil, false
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, false
	}
	return types.DefaultTypeAdapter.NativeToValue(v), true
}
