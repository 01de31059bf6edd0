package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"capsem/core/fault"
)

// serviceName is the name under which the binary is the service (personalities.Table).
const serviceName = "capsem-service"

// startTime is how long a service may take until it answers: it adopts running VMs first.
const startTime = 20 * time.Second

// passed are the variables that the service gets from whoever starts it.
var passed = []string{
	"CAPSEM_HOME", "HOME", "PATH", "TMPDIR", "TZ", "LANG", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
	"CAPSEM_DEBIAN_MIRROR", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// EnsureService starts the service unless it answers, and waits until it does. It outlives this process. When several
// clients do so at once, one service stays and all of them get it.
func (c *Client) EnsureService(ctx context.Context) error {
	bounded, cancel := context.WithTimeoutCause(ctx, c.wait, errors.New("it did not answer in time"))
	defer cancel()
	_, err := c.Version(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fault.Wrap(err, fault.Unavailable, "the capsem service runs but does not answer").
			WithHint("see %s, or end it and try again", c.home.ServiceLog())
	}
	if err == nil || !fault.Is(err, fault.Unavailable) {
		return err
	}
	b, err := c.start(bounded)
	if err != nil {
		return err
	}
	return c.await(bounded, b)
}

// await asks again and again until the service answers, or ends without having answered.
func (c *Client) await(ctx context.Context, b *birth) error {
	ended := b.ended
	pause := 2 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case err := <-ended:
			// A second service ends at once with success when the first is there; the first may still be starting.
			if err != nil {
				return fault.Wrap(err, fault.Unavailable, "the capsem service did not start: %s", c.lastWord(err, b.logFrom)).
					WithHint("see %s", c.home.ServiceLog())
			}
			ended = nil
			continue
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.Unavailable, "the capsem service did not start: %s", context.Cause(ctx)).
				WithHint("see %s", c.home.ServiceLog())
		}
		if _, err := c.Version(ctx); err == nil || (!fault.Is(err, fault.Unavailable) && ctx.Err() == nil) {
			return err
		}
		pause = min(pause*2, 100*time.Millisecond)
		timer.Reset(pause)
	}
}

// birth is a service that was started.
type birth struct {
	// ended brings how it ended, while this process lives.
	ended <-chan error
	// logFrom is how long the log was before, in bytes.
	logFrom int64
}

// start runs the service in a session of its own.
func (c *Client) start(ctx context.Context) (*birth, error) {
	program := c.opts.Executable
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("start service: %w", err)
		}
	}
	if err := os.MkdirAll(c.home.Run(), 0o700); err != nil {
		return nil, c.cannot(err)
	}
	log, err := os.OpenFile(c.home.ServiceLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, c.cannot(err)
	}
	defer log.Close()
	before, err := log.Stat()
	if err != nil {
		return nil, c.cannot(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program)
	cmd.Args = []string{serviceName}
	cmd.Dir, cmd.Env = "/", c.environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, c.cannot(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the service, or with this process
	return &birth{ended: ended, logFrom: before.Size()}, nil
}

func (c *Client) cannot(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fault.Wrap(err, fault.NoSpace, "no space left under %s", c.home.Dir()).WithHint("free some space on that disk")
	}
	return fault.Wrap(err, fault.Unavailable, "the capsem service cannot be started: %s", err).
		WithHint("CAPSEM_HOME (%s) must be a directory of yours", c.home.Dir())
}

func (c *Client) environment() []string {
	getenv := c.opts.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	env := []string{"CAPSEM_HOME=" + c.home.Dir()}
	for _, name := range passed {
		if value := getenv(name); value != "" && name != "CAPSEM_HOME" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// lastWord is the last line that the log got beyond from, which says why the service ended.
func (c *Client) lastWord(err error, from int64) string {
	f, openErr := os.Open(c.home.ServiceLog())
	if openErr != nil {
		return err.Error()
	}
	defer f.Close()
	const tail = 2048
	info, statErr := f.Stat()
	if statErr != nil {
		return err.Error()
	}
	if info.Size() < from { // somebody has begun a new one
		from = 0
	}
	text, readErr := io.ReadAll(io.NewSectionReader(f, max(from, info.Size()-tail), tail))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if last := lines[len(lines)-1]; readErr == nil && last != "" {
		return strings.TrimPrefix(last, "capsem: ")
	}
	return err.Error()
}
