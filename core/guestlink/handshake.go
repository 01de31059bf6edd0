package guestlink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"capsem/core/fault"
	"capsem/core/proto"
)

// handshake: the guest's Ready; BootConfig, FileWrite and BootConfigDone of ours; the guest's BootReady and BootTiming.
func (a *Agent) handshake(ctx context.Context, cfg Config) error {
	if err := checkFiles(cfg.Files); err != nil {
		return err
	}
	control, err := a.session.Open(ctx, proto.StreamHeader{Port: proto.PortControl})
	if err != nil {
		return waited(ctx, "it took no control stream", err)
	}
	a.control = control
	stop := context.AfterFunc(ctx, func() {
		_ = control.Close()
	})
	defer stop()
	if err := a.greet(ctx); err != nil {
		return err
	}
	if err := a.configure(cfg); err != nil {
		return waited(ctx, "it did not take its configuration", err)
	}
	if err := a.settle(); err != nil {
		return waited(ctx, "it did not become ready", err)
	}
	if !stop() {
		return waited(ctx, "it did not become ready", context.Cause(ctx))
	}
	return nil
}

func checkFiles(files []proto.FileWrite) error {
	total := 0
	for _, f := range files {
		total += len(f.Data)
	}
	if len(files) > proto.MaxBootFiles || total > proto.MaxBootFileBytes {
		return fmt.Errorf("%d files of %d bytes for the guest are more than %d or %d bytes",
			len(files), total, proto.MaxBootFiles, proto.MaxBootFileBytes)
	}
	return nil
}

func (a *Agent) greet(ctx context.Context) error {
	m, err := proto.ReadGuest(a.control)
	if err != nil {
		return waited(ctx, "it sent no first message", err)
	}
	ready, ok := m.(proto.Ready)
	if !ok {
		return fmt.Errorf("guest agent: the first message is %T, not Ready", m)
	}
	if ready.Protocol != proto.Version {
		return fault.New(fault.Unavailable, "the agent in the VM (version %.64q) speaks protocol %d, this capsem speaks %d",
			ready.Agent, ready.Protocol, proto.Version).
			WithHint("the image was built by another capsem: run `capsem assets build` and start the VM again")
	}
	a.ready = ready
	return nil
}

func (a *Agent) configure(cfg Config) error {
	boot := cfg.Boot
	boot.EpochNS = time.Now().UnixNano()
	if err := proto.WriteHost(a.control, boot); err != nil {
		return err
	}
	for _, f := range cfg.Files {
		if err := proto.WriteHost(a.control, f); err != nil {
			return fmt.Errorf("send %s: %w", f.Path, err)
		}
	}
	return proto.WriteHost(a.control, proto.BootConfigDone{})
}

// settle takes BootReady and BootTiming, once each.
func (a *Agent) settle() error {
	for ready, timed := false, false; !ready || !timed; {
		m, err := proto.ReadGuest(a.control)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case proto.BootReady:
			if ready {
				return errors.New("it said twice that it is ready")
			}
			ready, a.failed = true, m.Failed
		case proto.BootTiming:
			if timed {
				return errors.New("it sent its boot timing twice")
			}
			timed, a.stages = true, m.Stages
		default:
			return fmt.Errorf("a %T is out of order", m)
		}
	}
	return nil
}

// waited says what the guest agent failed to do, and whether it was time that ran out.
func waited(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return fault.Wrap(cause, fault.Timeout, "the agent in the VM did not answer in time: %s", what)
		}
		return fmt.Errorf("guest agent: %s: %w", what, cause)
	}
	return fmt.Errorf("guest agent: %s: %w", what, err)
}
