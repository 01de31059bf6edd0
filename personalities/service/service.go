// Package service is the daemon: one per CAPSEM_HOME, it keeps the VMs and answers the local API until it is told to end.
// VMs keep running without it, and the next one takes them over.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/buildinfo"
	"capsem/core/config"
	"capsem/core/credential"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/localapi"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/safesocket"
	core "capsem/core/service"
	"capsem/core/template"
)

const (
	// maxLog is the size at which the log is begun anew, in bytes; one old log is kept.
	maxLog = 8 << 20
	// gcPercent trades a little time for memory: the daemon is idle most of its life.
	gcPercent = 50
	// workerName is argv[0] of a worker, which is how the binary knows what to be.
	workerName = "capsem-process"
)

// parts is what the daemon is given of the host: images and the accelerator.
type parts struct {
	assetVersion func(ctx context.Context, home paths.Home, log *slog.Logger) func() (string, error)
	assetHealth  func(home paths.Home) func() api.AssetHealth
	accelerator  func(ctx context.Context, home paths.Home, log *slog.Logger, background *sync.WaitGroup) func() string
	template     func(ctx context.Context, home paths.Home, spec *proto.VMSpec) (template.Want, error)
}

// Run is the daemon. It returns when ctx ends, on SIGTERM or SIGINT, and when a client asks for it.
func Run(ctx context.Context, env entry.Env) error {
	return runWith(ctx, env, parts{assetVersion, assetHealth, accelerator, want})
}

func runWith(ctx context.Context, env entry.Env, of parts) error {
	if len(env.Args) > 0 {
		return fault.New(fault.Invalid, "the service takes no arguments, not %.80q", env.Args[0]).WithHint("capsem help service")
	}
	home, err := paths.Resolve(env.Getenv)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "%s", err).WithHint("set HOME or CAPSEM_HOME")
	}
	if err := core.OwnHome(home); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if err := os.MkdirAll(home.Run(), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	lock, err := guard.Acquire(home.ServiceLock())
	if errors.Is(err, guard.ErrHeld) {
		lock, err = another(ctx, env, home)
		if lock == nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("start service: %w", err)
	}
	defer lock.Release() //nolint:errcheck // the kernel lets go of it anyway
	return serve(ctx, home, of)
}

// serve is the life of the one service.
func serve(ctx context.Context, home paths.Home, of parts) error {
	debug.SetGCPercent(gcPercent)
	set, err := config.Load(home)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	out, err := core.OpenLog(home.ServiceLog(), maxLog)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer out.Close()
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level(set.Log.Level)}))
	// A terminal that closes must not take the service along.
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	opts := core.Options{
		Home: home, Log: log, Keychain: credential.SystemKeychain(), WorkerName: workerName, Settings: func() (*config.Settings, error) { return config.Load(home) },
		AssetVersion: of.assetVersion(ctx, home, log), AssetHealth: of.assetHealth(home), Accelerator: of.accelerator(ctx, home, log, &background),
	}
	if of.template != nil {
		opts.Template = func(ctx context.Context, spec *proto.VMSpec) (template.Want, error) {
			return of.template(ctx, home, spec)
		}
	}
	err = run(ctx, cancel, opts)
	if err != nil {
		log.Error("the service ends", "error", err)
	}
	return err
}

// run takes over what runs, listens and answers.
func run(ctx context.Context, cancel context.CancelFunc, opts core.Options) error {
	home, log := opts.Home, opts.Log
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	opts.Worker = []string{program}
	svc, err := core.New(ctx, opts)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer svc.Close()
	server, err := localapi.New(svc, log, cancel)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := atomicfile.Write(home.ServicePID(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer os.Remove(home.ServicePID())
	l, err := safesocket.Listen(ctx, home.ServiceSocket())
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer safesocket.Remove(home.ServiceSocket()) //nolint:errcheck // the next service replaces it
	log.Info("the service runs", "pid", os.Getpid(), "version", buildinfo.Version, "home", home.Dir())
	err = server.Serve(ctx, l)
	log.Info("the service has stopped", "error", err)
	return err //nolint:wrapcheck // says what it did
}

func level(name string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) != nil {
		return slog.LevelInfo
	}
	return l
}
