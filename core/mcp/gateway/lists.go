package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
)

// Resources and prompts are not pinned as tools are: they are offered as soon as a server lists them. So their names are kept to what cannot
// be taken for another's, and what they say of themselves is one short line.
const (
	// maxWords bounds what something says of itself, in bytes, maxTemplate a URI with variables, maxArguments the arguments of a prompt.
	maxWords, maxTemplate, maxArguments = 500, 2048, 64
)

// words is a text of a server as one short line, without what cannot be seen.
func words(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text[:min(len(text), 4*maxWords)])
	return strings.ToValidUTF8(text[:min(len(text), maxWords)], "")
}

// label is the name of a resource, which is for show: its URI is what it is called by.
func label(server, name string) string {
	if !mcp.PlainName(name) || len(name) > 100 {
		name = strings.Map(func(r rune) rune {
			if r < 0x80 && (r == '.' || r == ' ' || mcp.PlainName(string(r))) {
				return r
			}
			return '-'
		}, name[:min(len(name), 100)])
	}
	return mcp.Join(server, name)
}

func (v *view) addResources(o *aggregator.Offering) {
	for _, body := range o.Resources {
		var r sdk.Resource
		if json.Unmarshal(body, &r) != nil || !validURI(r.URI) || len(v.resources) >= maxListed {
			continue
		}
		v.resources = append(v.resources, &sdk.Resource{
			URI: mcp.JoinURI(o.Server, r.URI), Name: label(o.Server, r.Name), Title: words(r.Title), Description: words(r.Description),
			MIMEType: words(r.MIMEType), Size: max(r.Size, 0),
		})
	}
	for _, body := range o.Templates {
		var r sdk.ResourceTemplate
		if json.Unmarshal(body, &r) != nil || !plainURI(r.URITemplate, maxTemplate) || len(v.templates) >= maxListed {
			continue
		}
		v.templates = append(v.templates, &sdk.ResourceTemplate{
			URITemplate: mcp.JoinURI(o.Server, r.URITemplate), Name: label(o.Server, r.Name), Title: words(r.Title), Description: words(r.Description),
			MIMEType: words(r.MIMEType),
		})
	}
}

func (v *view) addPrompts(o *aggregator.Offering) {
	for _, body := range o.Prompts {
		var p sdk.Prompt
		if json.Unmarshal(body, &p) != nil || !mcp.PlainName(p.Name) || len(p.Name) > 128 || len(p.Arguments) > maxArguments || len(v.prompts) >= maxListed {
			continue
		}
		one := &sdk.Prompt{Name: mcp.Join(o.Server, p.Name), Title: words(p.Title), Description: words(p.Description)}
		for _, a := range p.Arguments {
			if a != nil && len(a.Name) <= 128 && words(a.Name) == a.Name {
				one.Arguments = append(one.Arguments, &sdk.PromptArgument{Name: a.Name, Title: words(a.Title), Description: words(a.Description), Required: a.Required})
			}
		}
		v.prompts = append(v.prompts, one)
	}
}

// tidy puts the lists in the order in which they are paged through, each item once. Prompts whose names look alike are not offered at all:
// nobody could tell which is meant.
func (v *view) tidy() {
	v.resources = sorted(v.resources, func(r *sdk.Resource) string { return r.URI })
	v.templates = sorted(v.templates, func(r *sdk.ResourceTemplate) string { return r.URITemplate })
	v.prompts = sorted(v.prompts, func(p *sdk.Prompt) string { return p.Name })
	alike := map[string]int{}
	for _, p := range v.prompts {
		alike[mcp.Skeleton(p.Name)]++
	}
	v.prompts = slices.DeleteFunc(v.prompts, func(p *sdk.Prompt) bool { return alike[mcp.Skeleton(p.Name)] > 1 })
	for _, r := range v.resources {
		v.resourceKeys = append(v.resourceKeys, r.URI+" "+r.Description)
	}
	for _, r := range v.templates {
		v.resourceKeys = append(v.resourceKeys, r.URITemplate+" "+r.Description)
	}
	for _, p := range v.prompts {
		v.promptKeys = append(v.promptKeys, p.Name+" "+p.Description)
	}
}

// hasPrompt reports whether a prompt is offered.
func (v *view) hasPrompt(full string) bool {
	_, there := slices.BinarySearchFunc(v.prompts, full, func(p *sdk.Prompt, name string) int { return strings.Compare(p.Name, name) })
	return there
}

// sorted sorts items by name and leaves out those that have the name of one before.
func sorted[T any](items []T, name func(T) string) []T {
	slices.SortStableFunc(items, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return slices.CompactFunc(items, func(a, b T) bool { return name(a) == name(b) })
}

// plainURI reports whether a text has only characters that a URI, or a template of some, can have.
func plainURI(text string, most int) bool {
	return text != "" && len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`", r) })
}
