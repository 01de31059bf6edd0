package mcp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/config"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/localapi"
	"capsem/core/paths"
	"capsem/core/safesocket"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// TestMain lets this binary be capsem-mcp, the service that it starts, and that one's workers, which have no VMs.
func TestMain(m *testing.M) {
	var err error
	switch name := filepath.Base(os.Args[0]); {
	case servicetest.IsWorker(os.Args):
		os.Exit(servicetest.Worker(os.Args[1:]))
	case name == "capsem-service":
		err = beService()
	case name == "capsem-mcp":
		err = Run(context.Background(), entry.Env{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
	default:
		os.Exit(m.Run())
	}
	if line := fault.Line(err); line != "" {
		fmt.Fprintln(os.Stderr, "capsem:", line)
	}
	os.Exit(fault.ExitCode(err))
}

// beService is a real service on its socket, whose workers are fakes.
func beService() error {
	home, err := paths.Resolve(os.Getenv)
	if err != nil {
		return err
	}
	if err := service.OwnHome(home); err != nil {
		return err
	}
	if err := os.MkdirAll(home.Run(), 0o700); err != nil {
		return err
	}
	lock, err := guard.Acquire(home.ServiceLock())
	if err != nil {
		return err
	}
	defer lock.Release()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	svc, err := service.New(ctx, service.Options{
		Home: home, Log: log, Worker: []string{self},
		Settings: func() (*config.Settings, error) {
			return &config.Settings{
				VM:  config.VM{CPUs: 2, RAMMB: 512, DiskMB: 2048, MaxVMs: 4, Accelerator: "tcg", ReadyTimeout: 20 * time.Second},
				Log: config.Log{Level: "info"},
			}, nil
		},
		AssetVersion: func() (string, error) { return "test", nil },
		AssetHealth:  func() api.AssetHealth { return api.AssetHealth{Ready: true, Version: "test"} },
		Accelerator:  func() string { return "none" },
	})
	if err != nil {
		return err
	}
	defer svc.Close()
	server, err := localapi.New(svc, log, cancel)
	if err != nil {
		return err
	}
	l, err := safesocket.Listen(ctx, home.ServiceSocket())
	if err != nil {
		return err
	}
	return server.Serve(ctx, l)
}

// agent is a client of a capsem-mcp that is a process of its own.
type agent struct {
	*sdk.ClientSession
	t    *testing.T
	home paths.Home
	// svc speaks to the same service.
	svc *client.Client

	mu       sync.Mutex
	progress []string
	logs     []string
	updated  chan string
}

func command(home paths.Home, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"capsem-mcp"}, args...)
	cmd.Env = []string{"CAPSEM_HOME=" + home.Dir(), "HOME=" + home.Dir(), "PATH=" + os.Getenv("PATH")}
	cmd.Stderr = os.Stderr
	return cmd
}

// home is an installation whose service, if one comes up, is stopped at the end.
func newHome(t *testing.T) (paths.Home, *client.Client) {
	t.Helper()
	home := servicetest.Home(t)
	svc := client.New(home, client.Options{})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _ = svc.Shutdown(ctx)
	})
	return home, svc
}

// newAgent starts capsem-mcp and a client that speaks a version of the protocol, the latest when it is empty.
func newAgent(t *testing.T, version string, args ...string) *agent {
	t.Helper()
	home, svc := newHome(t)
	a := &agent{t: t, home: home, svc: svc, updated: make(chan string, 16)}
	c := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, &sdk.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.progress = append(a.progress, r.Params.Message)
		},
		LoggingMessageHandler: func(_ context.Context, r *sdk.LoggingMessageRequest) { //nolint:staticcheck // deprecated, not gone
			a.mu.Lock()
			defer a.mu.Unlock()
			a.logs = append(a.logs, fmt.Sprint(r.Params.Level, r.Params.Data))
		},
		ResourceUpdatedHandler: func(_ context.Context, r *sdk.ResourceUpdatedNotificationRequest) { a.updated <- r.Params.URI },
	})
	var err error
	a.ClientSession, err = c.Connect(t.Context(), &sdk.CommandTransport{Command: command(home, args...)}, &sdk.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("capsem-mcp ended with %v", err)
		}
	})
	return a
}

// object is a JSON object.
type object = map[string]any

// call calls a tool, which must succeed, and returns its structured answer.
func (a *agent) call(name string, args object) object {
	a.t.Helper()
	res, err := a.CallTool(a.t.Context(), &sdk.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
	if res.IsError {
		a.t.Fatalf("%s: %s", name, text(res))
	}
	out, ok := res.StructuredContent.(object)
	if !ok {
		a.t.Fatalf("%s: the answer is %T", name, res.StructuredContent)
	}
	return out
}

// fails calls a tool, which must fail, and returns its words and code.
func (a *agent) fails(name string, args object) (words, code string) {
	a.t.Helper()
	res, err := a.CallTool(a.t.Context(), &sdk.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
	if !res.IsError || res.StructuredContent != nil {
		a.t.Fatalf("%s succeeded: %v", name, res.StructuredContent)
	}
	return text(res), fmt.Sprint(res.Meta["capsem/code"])
}

func text(res *sdk.CallToolResult) string {
	var b strings.Builder
	for _, c := range res.Content {
		if t, ok := c.(*sdk.TextContent); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	over := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// bare is a capsem-mcp with its bare streams.
type bare struct {
	in   io.WriteCloser
	out  io.Reader
	cmd  *exec.Cmd
	wait func() error
}

func raw(t *testing.T, home paths.Home) *bare {
	t.Helper()
	b := &bare{cmd: command(home)}
	var err error
	if b.in, err = b.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if b.out, err = b.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.wait = sync.OnceValue(b.cmd.Wait)
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		_ = b.wait()
	})
	return b
}
