package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/credential/swap"
	"capsem/core/detect"
	"capsem/core/fault"
	"capsem/core/proto"
)

const (
	// credentialsTime is how long a guest that has answered waits for the service to tell of credentials: it does so at once.
	credentialsTime = 2 * time.Second
	// furnishTime bounds writing the files for the guest.
	furnishTime = 10 * time.Second
)

// credentials are those of the VM. The values are in the vault, in this process's memory only.
type credentials struct {
	vault *swap.Vault
	// told is closed when the service has told of them for the first time.
	told chan struct{}
	once sync.Once

	own atomic.Pointer[detect.Own]

	mu    sync.Mutex
	env   map[string]string
	files []proto.GrantFile
	// servers are for the owner's MCP servers.
	servers serverSecrets
	// asked are the tokens that the service was last asked to renew, by name, and tell asks it.
	asked map[string]askedToken
	tell  func([]proto.RefusedToken)
}

func newCredentials() *credentials {
	return &credentials{vault: swap.NewVault(), told: make(chan struct{}), servers: newServerSecrets(nil)}
}

// ownPart is what of a value is in no other text: not how keys of its kind begin, which the placeholder has too, and of a JSON web token
// the signature only.
func ownPart(value, placeholder string) string {
	if strings.HasPrefix(value, "eyJ") {
		value = value[strings.LastIndexByte(value, '.')+1:]
	}
	for value != "" && placeholder != "" && value[0] == placeholder[0] {
		value, placeholder = value[1:], placeholder[1:]
	}
	return value
}

// ownSecrets are the hashes that the owner's secrets are found by.
func (c *credentials) ownSecrets() *detect.Own { return c.own.Load() }

// takeCredentials takes a part of what the service tells, and all of it with the last.
func (w *Worker) takeCredentials(ctx context.Context, c *client, part *proto.Credentials) error {
	all := c.credentials
	if all == nil {
		all = part
	} else {
		all.Join(part)
	}
	c.credentials = nil
	if err := all.Validate(); err != nil {
		return fault.New(fault.Invalid, "%s", err)
	}
	if all.More {
		c.credentials = all
		return nil
	}
	return w.setCredentials(ctx, all)
}

// setCredentials takes what the service tells, and puts the files for the guest into it if it runs.
func (w *Worker) setCredentials(ctx context.Context, c *proto.Credentials) error {
	if err := w.credentials.vault.Set(c); err != nil {
		return fault.Wrap(err, fault.Invalid, "the credentials cannot be used")
	}
	values := map[string][]byte{}
	for _, g := range c.Grants {
		for _, s := range g.Secrets {
			if s.Value != "" {
				values[g.Name] = []byte(ownPart(string(s.Value), s.Placeholder))
			}
		}
	}
	for name, value := range c.Servers {
		if _, there := values[name]; !there {
			values[name] = []byte(ownPart(string(value), ""))
		}
	}
	for name, value := range c.Watched {
		if _, there := values[name]; !there {
			values[name] = []byte(ownPart(string(value), ""))
		}
	}
	w.credentials.own.Store(detect.NewOwn(values))
	w.credentials.setServers(c.Servers, c.Unrenewed)
	w.credentials.mu.Lock()
	w.credentials.env, w.credentials.files = c.Env, c.Files
	w.credentials.mu.Unlock()
	first := false
	w.credentials.once.Do(func() { close(w.credentials.told); first = true })
	w.mu.Lock()
	a := w.agent
	w.mu.Unlock()
	if a != nil && !first {
		w.furnishCredentials(ctx, a)
	}
	return nil
}

// withCredentials adds the variables that have placeholders to those of a command. What the command or the VM sets itself stays.
func (w *Worker) withCredentials(env map[string]string) map[string]string {
	w.credentials.mu.Lock()
	more := w.credentials.env
	w.credentials.mu.Unlock()
	w.mu.Lock()
	own := w.spec.Env
	w.mu.Unlock()
	out := maps.Clone(env)
	for k, v := range more {
		_, set := env[k]
		if _, ours := own[k]; set || ours || len(out) >= proto.MaxEnv {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out
}

// furnishCredentials puts the files into the guest that its command lines look for. What goes wrong is no reason not to go on.
func (w *Worker) furnishCredentials(ctx context.Context, a guestAgent) {
	if w.spec.Family == "" {
		return // a template, or a VM of before there were credentials
	}
	ctx, cancel := context.WithTimeout(ctx, furnishTime)
	defer cancel()
	timer := time.NewTimer(credentialsTime)
	defer timer.Stop()
	select {
	case <-w.credentials.told:
	case <-timer.C:
		w.log.Warn("the service has told of no credentials")
	case <-ctx.Done():
	}
	w.credentials.mu.Lock()
	files := w.credentials.files
	w.credentials.mu.Unlock()
	for _, f := range files {
		if err := w.furnish(ctx, a, f); err != nil {
			w.log.Warn("a file for the guest's command lines was not written", "path", f.Path, "error", err)
		}
	}
}

// furnish writes one file unless the guest has one of its own there.
func (w *Worker) furnish(ctx context.Context, a guestAgent, f proto.GrantFile) error {
	old, err := readGuestFile(ctx, a, f.Path, proto.MaxGrantFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case f.Merge && errors.Is(err, errTooLong):
		return nil // one that has grown so long is in use
	case err != nil:
		return err
	case f.Merge:
		text, changed := mergeJSON(old, []byte(f.Text))
		if !changed {
			return nil
		}
		f.Text = string(text)
	case f.Keep || bytes.Equal(old, []byte(f.Text)) || !w.credentials.vault.Placeholder(old):
		return nil // what has none of our placeholders somebody else wrote
	}
	return writeGuestFile(ctx, a, f)
}

var errTooLong = errors.New("read guest file: it is too long")

// readGuestFile reads a small file beneath /root; one that is not there is fs.ErrNotExist.
func readGuestFile(ctx context.Context, a guestAgent, name string, limit int) ([]byte, error) {
	st, err := a.File(ctx, &proto.FileRequest{Op: proto.FileRead, Path: name})
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	var out []byte
	for frames := proto.NewStreamReader(st); ; {
		kind, data, err := frames.Next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("read guest file: %w", err)
		case kind == proto.KindData && len(out)+len(data) <= limit:
			out = append(out, data...)
		case kind == proto.KindData:
			return nil, errTooLong
		case kind == proto.KindResult:
			return out, guestResult(data)
		default:
			return nil, errRules
		}
	}
}

func guestResult(data []byte) error {
	var r proto.FileResult
	if err := json.Unmarshal(data, &r); err != nil {
		return errRules
	}
	switch {
	case r.OK:
		return nil
	case r.Code == string(fault.NotFound):
		return fs.ErrNotExist
	}
	return fmt.Errorf("the guest says %.200q", r.Message)
}

// writeGuestFile writes a small file that only the guest's root can read.
func writeGuestFile(ctx context.Context, a guestAgent, f proto.GrantFile) error {
	if dir := path.Dir(f.Path); dir != "." {
		if err := guestFileOp(ctx, a, &proto.FileRequest{Op: proto.FileMkdir, Path: dir, Mode: 0o700}, nil); err != nil {
			return err
		}
	}
	return guestFileOp(ctx, a, &proto.FileRequest{Op: proto.FileWriteOp, Path: f.Path, Mode: 0o600}, []byte(f.Text))
}

// guestFileOp does one operation that has a result; a written file's content goes before it.
func guestFileOp(ctx context.Context, a guestAgent, req *proto.FileRequest, text []byte) error {
	st, err := a.File(ctx, req)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	if req.Op == proto.FileWriteOp {
		for len(text) > 0 {
			n := min(len(text), proto.MaxChunk)
			if err := proto.WriteStreamFrame(st, proto.KindData, text[:n]); err != nil {
				return fmt.Errorf("write guest file: %w", err)
			}
			text = text[n:]
		}
		if err := proto.WriteStreamFrame(st, proto.KindData, nil); err != nil {
			return fmt.Errorf("write guest file: %w", err)
		}
	}
	kind, data, err := proto.NewStreamReader(st).Next()
	if err != nil {
		return fmt.Errorf("write guest file: %w", err)
	}
	if kind != proto.KindResult {
		return errRules
	}
	return guestResult(data)
}
