package aggregator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/buildinfo"
	"capsem/core/mcp"
	"capsem/core/mcp/peer"
)

// session keeps one server connected.
type session struct {
	a      *aggregator
	server Server
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // the session's own life
	stop   context.CancelFunc
	// slots are the calls that may run at once.
	slots chan struct{}
	// relist is filled when something may have changed.
	relist chan struct{}

	mu      sync.Mutex
	client  *sdk.ClientSession // nil while it is not connected
	why     string             // why it is not
	changed chan struct{}      // closed when client or why change
}

func newSession(a *aggregator, server *Server) *session {
	s := &session{a: a, server: *server, log: a.cfg.Log.With("server", server.Name), relist: make(chan struct{}, 1), changed: make(chan struct{})}
	s.server.Limits = server.Limits.Or(mcp.DefaultLimits())
	s.slots = make(chan struct{}, s.server.Limits.Concurrency)
	s.ctx, s.stop = context.WithCancel(a.parent)
	return s
}

// wake has it look again at what the server offers.
func (s *session) wake() {
	select {
	case s.relist <- struct{}{}:
	default:
	}
}

// run connects again and again until the session is stopped.
func (s *session) run() {
	defer s.stop()
	pause := firstPause
	for {
		began := time.Now()
		err := s.once()
		if s.ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended")
		}
		why := s.hidden(err.Error())
		s.set(nil, why)
		s.a.tell(Offered, Offering{Server: s.server.Name, Error: clip(why, 1000)})
		if time.Since(began) > steadyTime {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.relist:
			timer.Stop()
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// hidden is an error without the server's URL: the guest is told of errors, and URLs of servers may have keys in them.
func (s *session) hidden(text string) string {
	u, err := url.Parse(s.server.URL)
	if s.server.URL == "" || err != nil {
		return text
	}
	text = strings.ReplaceAll(text, s.server.URL, u.Scheme+"://"+u.Host)
	if u.RawQuery != "" {
		text = strings.ReplaceAll(text, u.RawQuery, "...")
	}
	return text
}

// again has it try at once to connect, if it is not: what it is given may have changed.
func (s *session) again() {
	s.mu.Lock()
	down := s.client == nil
	s.mu.Unlock()
	if down {
		s.wake()
	}
}

func (s *session) set(c *sdk.ClientSession, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.why = c, why
	close(s.changed)
	s.changed = make(chan struct{})
}

// once is one connection, from its begin to its end.
func (s *session) once() error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	start, done := context.WithTimeout(ctx, startTime)
	defer done()
	transport, hangUp, err := s.transport(start)
	if err != nil {
		return err
	}
	defer hangUp()
	client := sdk.NewClient(&sdk.Implementation{Name: "capsem", Version: buildinfo.Version}, s.options())
	c, err := client.Connect(start, transport, &sdk.ClientSessionOptions{ProtocolVersion: s.revision()})
	if e, ok := errors.AsType[*peer.Error](err); ok {
		return e // what became of its requests
	}
	if err != nil {
		return fmt.Errorf("it does not answer as an MCP server: %w", err)
	}
	ended := make(chan error, 1)
	s.a.work.Go(func() { ended <- c.Wait() })
	defer func() {
		hangUp() // a server that reads nothing must not hold up the end
		_ = c.Close()
	}()
	for first := true; ; first = false {
		offer, err := s.list(ctx, c)
		if err != nil {
			return err
		}
		s.a.tell(Offered, offer)
		if first {
			s.set(c, "")
			_ = c.SetLoggingLevel(ctx, &sdk.SetLoggingLevelParams{Level: "info"}) //nolint:staticcheck // most servers have none; older ones do
		}
		timer := time.NewTimer(relistTime)
		select {
		case err := <-ended:
			timer.Stop()
			return err
		case <-s.relist:
			timer.Stop()
			if err := rest(ctx, ended); err != nil {
				return err
			}
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx) //nolint:wrapcheck // nobody reads it
		}
	}
}

// rest is a pause before a server is listed again: one that says without end that its lists have changed must keep nobody busy. It gives
// why there is no going on.
func rest(ctx context.Context, ended <-chan error) error {
	timer := time.NewTimer(relistPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-ended:
		if err == nil {
			err = errors.New("it ended")
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx) //nolint:wrapcheck // nobody reads it
	}
}

// askingRevision is the last revision of the protocol in which a server asks the client in the middle of a call.
const askingRevision = "2025-11-25"

// revision is what to begin with; empty is the newest.
func (s *session) revision() string {
	if s.server.Sampling || s.server.Elicitation {
		return askingRevision
	}
	return ""
}

// options are what the client does with what the server says of itself.
func (s *session) options() *sdk.ClientOptions {
	event := func(kind string, token uint64, params any) {
		body, err := json.Marshal(params)
		if err == nil && len(body) <= maxEvent {
			s.a.tell(Event, Happening{Server: s.server.Name, Kind: kind, Token: token, Params: body})
		}
	}
	o := &sdk.ClientOptions{
		Capabilities:               &sdk.ClientCapabilities{},
		ToolListChangedHandler:     func(context.Context, *sdk.ToolListChangedRequest) { s.wake() },
		PromptListChangedHandler:   func(context.Context, *sdk.PromptListChangedRequest) { s.wake() },
		ResourceListChangedHandler: func(context.Context, *sdk.ResourceListChangedRequest) { s.wake() },
		ResourceUpdatedHandler: func(_ context.Context, r *sdk.ResourceUpdatedNotificationRequest) {
			event(Updated, 0, r.Params)
		},
		LoggingMessageHandler: func(_ context.Context, r *sdk.LoggingMessageRequest) { event(Log, 0, r.Params) }, //nolint:staticcheck // servers and clients of older revisions have it
		ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) {
			if token, ok := tokenOf(r.Params.ProgressToken); ok {
				event(Progress, token, r.Params)
			}
		},
	}
	if s.server.Sampling {
		o.CreateMessageHandler = func(ctx context.Context, r *sdk.CreateMessageRequest) (*sdk.CreateMessageResult, error) { //nolint:staticcheck // servers and clients of older revisions have it
			return ask[sdk.CreateMessageResult](ctx, s, "sampling/createMessage", r.Params) //nolint:staticcheck // servers and clients of older revisions have it
		}
	}
	if s.server.Elicitation {
		o.ElicitationHandler = func(ctx context.Context, r *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
			return ask[sdk.ElicitResult](ctx, s, "elicitation/create", r.Params)
		}
	}
	return o
}

// tokenOf reads a progress token of ours back.
func tokenOf(v any) (uint64, bool) {
	f, ok := v.(float64)
	return uint64(f), ok && f > 0 && f < 1<<53
}

// ask hands a request of the server to the VM's client.
func ask[T any](ctx context.Context, s *session, method string, params any) (*T, error) {
	body, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("encode question: %w", err)
	}
	var answer []byte
	if err := s.a.ask(ctx, Ask, Question{Server: s.server.Name, Method: method, Params: body}, &answer); err != nil {
		return nil, err
	}
	var out T
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, errors.New("the client's answer is none")
	}
	return &out, nil
}

// connected waits for the server to be connected.
func (s *session) connected(ctx context.Context) (*sdk.ClientSession, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	for {
		s.mu.Lock()
		c, why, changed := s.client, s.why, s.changed
		s.mu.Unlock()
		if c != nil {
			return c, nil
		}
		if why != "" {
			return nil, peer.Errorf(peer.CodeFailed, "MCP server %s does not run: %s", s.server.Name, clip(why, 500))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, peer.Errorf(peer.CodeTimeout, "MCP server %s has not started yet", s.server.Name)
		}
	}
}

// clip shortens a text of a server.
func clip(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
