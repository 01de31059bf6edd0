package machine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/proto"
)

const (
	// renewTime is how long a call waits for the service to get the next token, renewAgain how long it is then not asked for another.
	renewTime, renewAgain = 30 * time.Second, time.Minute
)

// askedToken is a token that the service was asked to renew.
type askedToken struct {
	proto.RefusedToken

	at time.Time
}

// Renew waits until there is another token of a sign-in than one that its server has refused: host.Secrets. However many calls wait, the
// service is asked once.
func (c *credentials) Renew(ctx context.Context, name, mark string) error {
	timer := time.NewTimer(renewTime)
	defer timer.Stop()
	none := fault.New(fault.Unavailable, "there is no next token")
	for asked := false; ; asked = true {
		now := c.ofServers()
		value, there := now.values[name]
		switch {
		case !there:
			return none
		case mcp.Mark(string(value)) != mark:
			return nil
		case now.unrenewed[name] == mark && (asked || !c.old(name, mark)):
			return none
		}
		if !asked {
			c.ask(name, mark)
			continue // it may have been told meanwhile
		}
		select {
		case <-now.replaced:
		case <-timer.C:
			return none
		case <-ctx.Done():
			return context.Cause(ctx) //nolint:wrapcheck // the caller's own
		}
	}
}

// old reports whether it is long ago, or never, that the service was asked about a token.
func (c *credentials) old(name, mark string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.asked[name]
	return last.Mark != mark || time.Since(last.at) > renewAgain
}

// ask has the service renew a token, unless it was asked just now.
func (c *credentials) ask(name, mark string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.asked[name]
	if c.tell == nil || last.Mark == mark && time.Since(last.at) <= renewAgain {
		return
	}
	if c.asked == nil {
		c.asked = map[string]askedToken{}
	}
	c.asked[name] = askedToken{proto.RefusedToken{Name: name, Mark: mark, Number: last.Number + 1}, time.Now()}
	// What it said before counts no more: it will say it again.
	c.servers.unrenewed = maps.Clone(c.servers.unrenewed)
	delete(c.servers.unrenewed, name)
	var all []proto.RefusedToken
	for _, t := range c.asked {
		all = append(all, t.RefusedToken)
	}
	slices.SortFunc(all, func(a, b proto.RefusedToken) int { return strings.Compare(a.Name, b.Name) })
	c.tell(all)
}
