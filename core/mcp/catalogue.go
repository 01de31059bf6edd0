package mcp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxTools bounds the tools of one server, maxAll those of all.
	maxTools, maxAll = 1000, 10_000
)

// State is what becomes of a tool.
type State string

// The states.
const (
	// Listed tools can be called. Held ones wait for the owner's approval. Refused ones have a name that cannot be.
	Listed  State = "listed"
	Held    State = "held"
	Refused State = "refused"
)

// Entry is one tool of the catalogue.
type Entry struct {
	// Full is its name for VMs, Server and Name what it is made of.
	Full, Server, Name string
	// Pin is the hash of its description.
	Pin string
	// State says whether it can be called, Why why not.
	State State
	Why   string
	// Tool is as its server describes it; nil for one whose description is none. Public is it as clients see it.
	Tool   *Tool
	Public json.RawMessage
}

// Offer is what one server lists.
type Offer struct {
	Server string
	// Tools are the descriptions of its tools, as they came.
	Tools []json.RawMessage
	// Own says that the server is part of capsem, and its tools need no approval.
	Own bool
}

// Catalogue is all tools of all servers at one moment. It does not change.
type Catalogue struct {
	all    []*Entry
	byName map[string]*Entry
	listed []*Entry
}

// Approver says which tools the owner has approved.
type Approver interface {
	// Approved reports whether this tool was approved with this pin; known whether it was with another.
	Approved(full, pin string) (approved, known bool)
}

// Build makes the catalogue of what servers offer.
func Build(offers []Offer, pins Approver) *Catalogue {
	c := &Catalogue{byName: map[string]*Entry{}}
	offers = slices.Clone(offers)
	slices.SortFunc(offers, func(a, b Offer) int { return strings.Compare(a.Server, b.Server) })
	for _, o := range offers {
		for i, raw := range o.Tools {
			if i >= maxTools || len(c.all) >= maxAll {
				c.all = append(c.all, &Entry{Server: o.Server, State: Refused, Why: fmt.Sprintf("the server has %d tools; %d are too many", len(o.Tools), maxTools)})
				break
			}
			c.all = append(c.all, newEntry(&o, raw, pins))
		}
	}
	c.refuseTwins()
	for _, e := range c.all {
		if e.State == Listed {
			c.listed = append(c.listed, e)
		}
		if old := c.byName[e.Full]; e.Full != "" && (old == nil || old.State == Refused) {
			c.byName[e.Full] = e
		}
	}
	return c
}

func newEntry(o *Offer, raw []byte, pins Approver) *Entry {
	e := &Entry{Server: o.Server}
	var err error
	if e.Tool, err = ParseTool(raw); err != nil {
		e.State, e.Why = Refused, err.Error()
		return e
	}
	e.Name, e.Full = e.Tool.Name, Join(o.Server, e.Tool.Name)
	if !PlainName(e.Name) || len(e.Full) > maxFullName {
		e.Full, e.State = "", Refused
		e.Why = fmt.Sprintf("a name that cannot be: up to %d letters, digits, - and _", maxFullName-len(o.Server)-len(Separator))
		return e
	}
	e.Pin = e.Tool.Pin()
	if e.Public, err = e.Tool.public(e.Full); err != nil {
		e.State, e.Why = Refused, err.Error()
		return e
	}
	switch approved, known := pins.Approved(e.Full, e.Pin); {
	case approved || o.Own:
		e.State = Listed
	case known:
		e.State, e.Why = Held, "it has changed since it was approved"
	default:
		e.State, e.Why = Held, "it is new"
	}
	return e
}

// refuseTwins refuses tools whose names are the same or look the same. Of those the one that the owner has approved stays, if it is one.
func (c *Catalogue) refuseTwins() {
	alike := map[string][]*Entry{}
	for _, e := range c.all {
		if e.State != Refused {
			s := Skeleton(e.Full)
			alike[s] = append(alike[s], e)
		}
	}
	for _, twins := range alike {
		if len(twins) == 1 {
			continue
		}
		approved := slices.DeleteFunc(slices.Clone(twins), func(e *Entry) bool { return e.State != Listed })
		for _, e := range twins {
			if len(approved) == 1 && e == approved[0] {
				continue
			}
			other := twins[0]
			if other == e {
				other = twins[1]
			}
			e.State, e.Why = Refused, "its name is, or looks like, that of "+other.Full
		}
	}
}

// All are the tools there are, those that cannot be called too. Nobody changes them.
func (c *Catalogue) All() []*Entry { return c.all }

// Listed are those that can be called.
func (c *Catalogue) Listed() []*Entry { return c.listed }

// Find gives the tool of a name.
func (c *Catalogue) Find(full string) (*Entry, bool) {
	e, ok := c.byName[full]
	return e, ok
}

// Same reports whether both list the same tools.
func (c *Catalogue) Same(other *Catalogue) bool {
	return other != nil && slices.EqualFunc(c.listed, other.listed, func(a, b *Entry) bool { return a.Full == b.Full && a.Pin == b.Pin })
}
