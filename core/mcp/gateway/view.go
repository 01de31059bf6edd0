package gateway

import (
	"encoding/json"
	"slices"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
)

// view is all that is offered at one moment. It does not change.
type view struct {
	tools     *mcp.Catalogue
	listed    []*sdk.Tool
	resources []*sdk.Resource
	templates []*sdk.ResourceTemplate
	prompts   []*sdk.Prompt
	// resourceKeys and promptKeys are the same when these lists are.
	resourceKeys, promptKeys []string
	// servers are those that are there, up or down.
	servers map[string]*aggregator.Offering
}

// maxListed bounds the resources, templates and prompts of all servers, each.
const maxListed = 10_000

func makeView(offers []*aggregator.Offering, pins *mcp.Pins) *view {
	v := &view{servers: map[string]*aggregator.Offering{}}
	offered := make([]mcp.Offer, 0, len(offers))
	slices.SortFunc(offers, func(a, b *aggregator.Offering) int { return strings.Compare(a.Server, b.Server) })
	for _, o := range offers {
		v.servers[o.Server] = o
		of := mcp.Offer{Server: o.Server, Own: o.Server == mcp.Local}
		for _, t := range o.Tools {
			of.Tools = append(of.Tools, t)
		}
		offered = append(offered, of)
		v.addResources(o)
		v.addPrompts(o)
	}
	v.tools = mcp.Build(offered, pins)
	for _, e := range v.tools.Listed() {
		t := &sdk.Tool{Name: e.Full, Title: e.Tool.Title, Description: e.Tool.Description, InputSchema: e.Tool.InputSchema}
		if len(e.Tool.OutputSchema) > 0 {
			t.OutputSchema = e.Tool.OutputSchema
		}
		if len(e.Tool.Annotations) > 0 {
			t.Annotations = &sdk.ToolAnnotations{}
			if json.Unmarshal(e.Tool.Annotations, t.Annotations) != nil {
				t.Annotations = nil
			}
		}
		v.listed = append(v.listed, t)
	}
	v.tidy()
	slices.SortFunc(v.listed, func(a, b *sdk.Tool) int { return strings.Compare(a.Name, b.Name) })
	return v
}

// page gives the items after a cursor, which is the name of the last one before, and the cursor of what follows.
func page[T any](items []T, name func(T) string, cursor string) (part []T, next string) {
	first := 0
	if cursor != "" {
		for first < len(items) && name(items[first]) <= cursor {
			first++
		}
	}
	last := min(first+pageSize, len(items))
	if last < len(items) && last > first {
		next = name(items[last-1])
	}
	return append([]T{}, items[first:last]...), next
}
