package cli

import (
	"context"

	"capsem/core/client"
	"capsem/core/fault"
)

// service returns a client of the running service, and starts the service first when none runs.
func (s *session) service(ctx context.Context) (*client.Client, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	done := s.step("starting the capsem service")
	defer done()
	if err := c.EnsureService(ctx); err != nil {
		return nil, err //nolint:wrapcheck // a fault that already says what to do
	}
	return c, nil
}

// client returns a client without starting anything.
func (s *session) client() (*client.Client, error) {
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	return client.New(home, client.Options{}), nil
}

// svcDown reports whether err means that no service runs.
func svcDown(err error) bool { return fault.Is(err, fault.Unavailable) }
