package machine

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/proto"
)

// serverSecrets are the secrets that the owner's MCP servers get, as they are until replaced is closed.
type serverSecrets struct {
	values   map[string]proto.Secret
	replaced chan struct{}
	// unrenewed are marks of tokens for which there is no next one.
	unrenewed map[string]string
}

func newServerSecrets(values map[string]proto.Secret) serverSecrets {
	return serverSecrets{values: values, replaced: make(chan struct{})}
}

// ofServers are the secrets of MCP servers at this moment.
func (c *credentials) ofServers() serverSecrets {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers
}

// setServers takes the secrets of MCP servers.
func (c *credentials) setServers(values map[string]proto.Secret, unrenewed map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if maps.Equal(values, c.servers.values) && maps.Equal(unrenewed, c.servers.unrenewed) {
		return
	}
	old := c.servers
	c.servers = newServerSecrets(values)
	c.servers.unrenewed = unrenewed
	close(old.replaced)
}

// Resolve gives the value of a secret that the definition of an MCP server refers to: host.Secrets.
func (c *credentials) Resolve(ctx context.Context, name string) (string, error) {
	timer := time.NewTimer(credentialsTime)
	defer timer.Stop()
	select {
	case <-c.told:
	case <-timer.C: // the service has told of none
	case <-ctx.Done():
		return "", context.Cause(ctx) //nolint:wrapcheck // the caller's own
	}
	value, ok := c.ofServers().values[name]
	if !ok {
		return "", fault.New(fault.NotFound, "there is no such secret").WithHint("capsem secret set --kind mcp %.64s", name)
	}
	return string(value), nil
}

// redact is a text without the secrets, as they are and as JSON writes them: a server that has one may tell it.
func (s serverSecrets) redact(text []byte) string {
	out := string(text)
	for name, value := range s.values {
		out = strings.ReplaceAll(out, string(value), "[secret "+name+"]")
		if quoted, err := json.Marshal(string(value)); err == nil {
			out = strings.ReplaceAll(out, string(quoted[1:len(quoted)-1]), "[secret "+name+"]")
		}
	}
	return out
}
