package service

import (
	"context"
	"net"

	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// Dial connects to the worker of a VM. With ready it first waits for a VM that is booting, wakes one that sleeps because nobody used
// it, and refuses one that is down.
func (s *Service) Dial(ctx context.Context, id string, ready bool) (*workerclient.Conn, error) {
	v, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if ready {
		if err := s.wake(ctx, v); err != nil {
			return nil, err
		}
	}
	w := v.view()
	if ready && w.state != lifecycle.Running {
		if w, err = v.running(ctx); err != nil {
			return nil, err
		}
	}
	if w.life == nil {
		return nil, notRunning(w)
	}
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(v.instance(w.life)))
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "the worker of VM %s does not answer", id).WithHint("see capsem info %s and capsem logs %s", id, id)
	}
	return conn, nil
}

// Call asks the worker of a VM one thing.
func (s *Service) Call(ctx context.Context, id string, req proto.WorkerRequest) (proto.WorkerReply, error) {
	conn, err := s.Dial(ctx, id, false)
	if err != nil {
		return proto.WorkerReply{}, err
	}
	defer conn.Close()
	return conn.Call(ctx, req) //nolint:wrapcheck // a fault
}

// Stream opens a stream to the worker of a VM that is running, or booting and then running. The caller closes it.
func (s *Service) Stream(ctx context.Context, id string, req proto.WorkerRequest) (net.Conn, error) {
	for {
		conn, err := s.Dial(ctx, id, true)
		if err != nil {
			return nil, err
		}
		stream, err := conn.Stream(ctx, req)
		if err == nil || !s.fellAsleep(id) {
			return stream, err //nolint:wrapcheck // a fault
		}
	}
}

// fellAsleep reports whether a VM that was up has gone to sleep meanwhile.
func (s *Service) fellAsleep(id string) bool {
	v, err := s.find(id)
	return err == nil && v.view().sleeps()
}

// Terminal returns the socket of the worker of a VM that is running, or booting and then running.
func (s *Service) Terminal(ctx context.Context, id string) (string, error) {
	v, err := s.find(id)
	if err != nil {
		return "", err
	}
	if err := s.wake(ctx, v); err != nil {
		return "", err
	}
	w, err := v.running(ctx)
	if err != nil {
		return "", err
	}
	return s.socketOf(w), nil
}
