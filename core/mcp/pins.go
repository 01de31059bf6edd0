package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/atomicfile"
	"capsem/core/fault"
)

// maxPins bounds the file, and maxPinned what is in it.
const maxPins, maxPinned = 64 << 20, 20_000

// Pin is what is known of one tool.
type Pin struct {
	// Server and Name are what its full name is made of.
	Server string `json:"server"`
	Name   string `json:"name"`
	// Approved is the hash that the owner has approved; empty if none. Seen is the one that the server last had.
	Approved string `json:"approved,omitempty"`
	Seen     string `json:"seen"`
	// Tool is what has the hash Seen, for the owner to look at; Before what has the hash Approved.
	Tool   *Tool `json:"tool,omitempty"`
	Before *Tool `json:"before,omitempty"`
	// FirstSeen and LastSeen are when Seen was first and last seen.
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
}

// Waits reports whether the owner is to look at it.
func (p *Pin) Waits() bool { return p.Approved != p.Seen }

// Pins are the tools that were seen, in a file that all workers and the command line share.
type Pins struct {
	path string

	mu    sync.Mutex
	stamp os.FileInfo
	tools map[string]Pin
}

type pinsFile struct {
	Version int            `json:"version"`
	Tools   map[string]Pin `json:"tools"`
}

// OpenPins makes Pins of a file, which need not be there yet.
func OpenPins(path string) *Pins { return &Pins{path: path, tools: map[string]Pin{}} }

// Refresh reads the file if it was changed, and reports whether it was.
func (p *Pins) Refresh() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refresh()
}

func (p *Pins) refresh() (bool, error) {
	info, err := os.Stat(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		changed := p.stamp != nil
		p.stamp, p.tools = nil, map[string]Pin{}
		return changed, nil
	}
	if err != nil {
		return false, fmt.Errorf("read pins: %w", err)
	}
	if p.stamp != nil && os.SameFile(info, p.stamp) && info.ModTime().Equal(p.stamp.ModTime()) && info.Size() == p.stamp.Size() {
		return false, nil
	}
	if info.Size() > maxPins {
		return false, fault.New(fault.Invalid, "%s is too large to be what capsem wrote", p.path)
	}
	text, err := os.ReadFile(p.path)
	if err != nil {
		return false, fmt.Errorf("read pins: %w", err)
	}
	var f pinsFile
	if err := json.Unmarshal(text, &f); err != nil || f.Version != 1 {
		// Nothing of it is believed: what was approved has to be approved again, by the owner, who is told.
		p.tools = map[string]Pin{}
		return true, fault.New(fault.Invalid, "%s is not what capsem wrote; no tool counts as approved", p.path).WithHint("remove it, and approve again")
	}
	p.stamp, p.tools = info, f.Tools
	if p.tools == nil {
		p.tools = map[string]Pin{}
	}
	return true, nil
}

// Approved reports whether a tool was approved as it is.
func (p *Pins) Approved(full, pin string) (approved, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tools[full]
	return pin != "" && t.Approved == pin, t.Approved != ""
}

// All are the tools that were seen.
func (p *Pins) All() map[string]Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.tools)
}

// Saw notes the tools of a catalogue that are new or have changed. Nothing of that approves them.
func (p *Pins) Saw(c *Catalogue, now time.Time) error {
	known := p.All()
	if !slices.ContainsFunc(c.all, func(e *Entry) bool { return e.State == Held && known[e.Full].Seen != e.Pin }) {
		return nil
	}
	return p.change(func(tools map[string]Pin) error {
		// A server that makes up names again and again leaves nothing but its last ones, and what the owner has approved.
		offering := map[string]bool{}
		for _, e := range c.all {
			offering[e.Server] = true
		}
		maps.DeleteFunc(tools, func(full string, t Pin) bool { return t.Approved == "" && offering[t.Server] && c.byName[full] == nil })
		for _, e := range c.all {
			old, there := tools[e.Full]
			if e.State != Held || old.Seen == e.Pin || !there && len(tools) >= maxPinned {
				continue
			}
			next := Pin{Server: e.Server, Name: e.Name, Approved: old.Approved, Seen: e.Pin, Tool: e.Tool, Before: old.Before, FirstSeen: now, LastSeen: now}
			if old.Approved == old.Seen {
				next.Before = old.Tool
			}
			tools[e.Full] = next
		}
		return nil
	})
}

// Approve approves tools as they were last seen: one by its full name, or all of a server by the server's. pin, if not empty, is what the
// owner has looked at; if the tool has changed again since, nothing is approved.
func (p *Pins) Approve(name, pin string) (approved []string, err error) {
	err = p.change(func(tools map[string]Pin) error {
		for full, t := range tools {
			if full != name && t.Server != name || !t.Waits() {
				continue
			}
			if pin != "" && t.Seen != pin {
				return fault.New(fault.Conflict, "%s has changed again since you looked at it", full)
			}
			t.Approved, t.Before = t.Seen, nil
			tools[full] = t
			approved = append(approved, full)
		}
		if len(approved) == 0 {
			if t, there := tools[name]; there && !t.Waits() {
				return nil
			}
			return fault.New(fault.NotFound, "no tool or server %.80q waits for approval", name).WithHint("capsem mcp tools lists what there is")
		}
		return nil
	})
	slices.Sort(approved)
	return approved, err
}

// Forget drops what is known of a server's tools.
func (p *Pins) Forget(server string) error {
	return p.change(func(tools map[string]Pin) error {
		maps.DeleteFunc(tools, func(_ string, t Pin) bool { return t.Server == server })
		return nil
	})
}

// change changes the file under a lock that all processes share.
func (p *Pins) change(do func(map[string]Pin) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	lock, err := os.OpenFile(p.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock pins: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock pins: %w", err)
	}
	if _, err := p.refresh(); err != nil {
		return err
	}
	tools := maps.Clone(p.tools)
	if err := do(tools); err != nil {
		return err
	}
	text, err := json.Marshal(pinsFile{Version: 1, Tools: tools})
	if err == nil && len(text) > maxPins {
		err = fmt.Errorf("%d bytes are more than are read again", len(text))
	}
	if err == nil {
		err = atomicfile.Write(p.path, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write pins: %w", err)
	}
	p.tools, p.stamp = tools, nil // the next Refresh reads it, which makes sure
	return nil
}
