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
	_, err := c.Version(ctx)
	if err == nil || !fault.Is(err, fault.Unavailable) {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errors.New("it did not answer in time"))
	defer cancel()
	ended, err := c.start(ctx)
	if err != nil {
		return err
	}
	return c.await(ctx, ended)
}

// await asks again and again until the service answers, or ends without having answered.
func (c *Client) await(ctx context.Context, ended <-chan error) error {
	pause := 2 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case err := <-ended:
			// A second service ends at once with success when the first is there; the first may still be starting.
			if err != nil {
				return fault.Wrap(err, fault.Unavailable, "the capsem service did not start: %s", c.lastWord(err)).
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

// start runs the service in a session of its own. The channel brings how it ended, while this process lives.
func (c *Client) start(ctx context.Context) (<-chan error, error) {
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
	return ended, nil
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

// lastWord is the last line of the service's log, which says why it ended.
func (c *Client) lastWord(err error) string {
	f, openErr := os.Open(c.home.ServiceLog())
	if openErr != nil {
		return err.Error()
	}
	defer f.Close()
	const tail = 2048
	if info, statErr := f.Stat(); statErr == nil && info.Size() > tail {
		if _, seekErr := f.Seek(-tail, io.SeekEnd); seekErr != nil {
			return err.Error()
		}
	}
	text, readErr := io.ReadAll(io.LimitReader(f, tail))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if last := lines[len(lines)-1]; readErr == nil && last != "" {
		return strings.TrimPrefix(last, "capsem: ")
	}
	return err.Error()
}
