//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"capsem/core/buildinfo"
	"capsem/core/guest/castore"
	"capsem/core/guest/environ"
	"capsem/core/guest/stage"
	"capsem/core/proto"
)

// control is the control stream of one session. One goroutine reads and answers.
type control struct {
	agent  *Agent
	stream io.ReadWriter
	failed []string
	shares []proto.Share

	// trusting is what puts the host's certificate into the guest's stores beside the rest; untrusted is what went wrong with it.
	trusting  sync.WaitGroup
	untrusted []string
}

// errOrder is a message at the wrong time.
var errOrder = errors.New("the host's messages are out of order")

// handshake takes the configuration: Ready goes out, BootConfig comes first, then files, then BootConfigDone.
func (c *control) handshake(restored bool) error {
	ready := proto.Ready{Protocol: proto.Version, Agent: buildinfo.Version, BootID: c.agent.BootID, Restored: restored}
	if err := proto.WriteGuest(c.stream, ready); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	configured := false
	for {
		m, err := proto.ReadHost(c.stream)
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the host hung up during the handshake; it may refuse protocol %d of this agent", proto.Version)
		}
		if err != nil {
			return fmt.Errorf("configure: %w", err)
		}
		switch m := m.(type) {
		case proto.BootConfig:
			if configured {
				return fmt.Errorf("configure: %w: second configuration", errOrder)
			}
			configured = true
			err = c.configure(m)
		case proto.FileWrite:
			if !configured {
				return fmt.Errorf("configure: %w: file before configuration", errOrder)
			}
			err = c.agent.Identity.Place(m)
		case proto.BootConfigDone:
			if !configured {
				return fmt.Errorf("configure: %w: end before configuration", errOrder)
			}
			return nil
		default:
			err = c.handle(m)
		}
		if err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
}

func (c *control) configure(cfg proto.BootConfig) error {
	failed, err := c.agent.Identity.Apply(cfg)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	for _, f := range failed {
		c.failed = append(c.failed, stage.Plain(f))
	}
	c.shares = cfg.Shares
	env := map[string]string{}
	maps.Copy(env, environ.Image("/etc/environment"))
	if len(cfg.CA) > 0 {
		maps.Copy(env, castore.Env())
		c.trusting.Go(func() { c.trust(cfg.CA) })
	}
	env["CAPSEM_VM_ID"] = cfg.ID
	if cfg.Name != "" {
		env["CAPSEM_VM_NAME"] = cfg.Name
	}
	if cfg.Timezone != "" {
		env["TZ"] = cfg.Timezone
	}
	maps.Copy(env, cfg.Env)
	c.agent.Exec.SetEnv(env)
	c.agent.Terminals.SetEnv(env)
	return nil
}

// trust makes the guest trust the host's certificate. A guest without it is of use still, so this is not fatal.
func (c *control) trust(certificate []byte) {
	r, err := c.agent.store.Install(c.agent.Identity.Root, certificate)
	if err != nil {
		r.Skipped = append(r.Skipped, err.Error())
	}
	for _, what := range r.Skipped {
		c.untrusted = append(c.untrusted, stage.Plain("trust of the proxy: "+what))
	}
}

// ready tells the host that commands may come.
func (c *control) ready() error {
	c.trusting.Wait()
	failed := slices.Concat(c.failed, c.untrusted, c.agent.Report.Failed)
	failed = failed[:min(len(failed), proto.MaxBootStages)]
	if err := proto.WriteGuest(c.stream, proto.BootReady{Failed: failed}); err != nil {
		return fmt.Errorf("report ready: %w", err)
	}
	if err := proto.WriteGuest(c.stream, proto.BootTiming{Stages: c.agent.Report.WithAgent()}); err != nil {
		return fmt.Errorf("report timing: %w", err)
	}
	return nil
}

// serve answers the host until the stream ends.
func (c *control) serve() error {
	for {
		m, err := proto.ReadHost(c.stream)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.handle(m)
		}
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
	}
}

// handle answers what the host may send at any time.
func (c *control) handle(m proto.HostMessage) error {
	switch m := m.(type) {
	case proto.Ping:
		if err := c.agent.Identity.Drift(m.EpochNS); err != nil {
			c.agent.Log.Warn("agent: clock", "err", err)
		}
		return proto.WriteGuest(c.stream, proto.Pong{Seq: m.Seq}) //nolint:wrapcheck // says what it did
	case proto.Shutdown:
		return c.agent.Power.Off(m.GraceMS, m.Reboot) //nolint:wrapcheck // says what it did
	}
	return fmt.Errorf("%w: %T after the handshake", errOrder, m)
}
