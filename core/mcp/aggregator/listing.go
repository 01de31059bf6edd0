package aggregator

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// list asks a server for all that it offers.
func (s *session) list(ctx context.Context, c *sdk.ClientSession) (*Offering, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	o := &Offering{Server: s.server.Name, Up: true}
	init := c.InitializeResult()
	if init == nil || init.Capabilities == nil {
		return o, nil
	}
	o.Protocol = clip(init.ProtocolVersion, 40)
	if i := init.ServerInfo; i != nil {
		o.Title, o.Version = clip(i.Name, 100), clip(i.Version, 100)
	}
	caps, room := init.Capabilities, maxListing
	o.Completions = caps.Completions != nil
	var err error
	if caps.Tools != nil {
		if o.Tools, err = collect(c.Tools(ctx, nil), &room); err != nil {
			return nil, fmt.Errorf("its tools cannot be listed: %w", err)
		}
	}
	if caps.Resources != nil {
		o.Subscriptions = caps.Resources.Subscribe
		if o.Resources, err = collect(c.Resources(ctx, nil), &room); err != nil {
			return nil, fmt.Errorf("its resources cannot be listed: %w", err)
		}
		if o.Templates, err = collect(c.ResourceTemplates(ctx, nil), &room); err != nil {
			s.log.Debug("no resource templates", "error", err) // some servers have no such method
		}
	}
	if caps.Prompts != nil {
		if o.Prompts, err = collect(c.Prompts(ctx, nil), &room); err != nil {
			return nil, fmt.Errorf("its prompts cannot be listed: %w", err)
		}
	}
	return o, nil
}

// collect encodes all items of a list, as many as there may be.
func collect[T any](items iter.Seq2[*T, error], room *int) ([][]byte, error) {
	var out [][]byte
	for item, err := range items {
		if err != nil {
			return nil, err
		}
		if item == nil {
			continue
		}
		body, err := json.Marshal(item)
		if err != nil {
			return nil, fmt.Errorf("encode item: %w", err)
		}
		if *room -= len(body); *room < 0 || len(out) >= maxItems {
			return nil, errTooMuch
		}
		out = append(out, body)
	}
	return out, nil
}
