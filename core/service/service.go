// Package service is the brain of the daemon: which VMs there are, what state they are in, and the moves between. It starts
// one worker process for each VM and talks to it over its socket; it never runs a VM itself.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/image"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/template"
)

// Options is what a Service needs from outside.
type Options struct {
	// Home is CAPSEM_HOME.
	Home paths.Home
	// Log takes what happens. It never gets environments or commands.
	Log *slog.Logger
	// Settings reads the settings; it is called for each new VM, so that a change takes effect without a restart.
	Settings func() (*config.Settings, error)
	// AssetVersion is the asset set that a new VM boots, or why there is none.
	AssetVersion func() (string, error)
	// AssetHealth is what list and status say of the assets.
	AssetHealth func() api.AssetHealth
	// Accelerator is the verdict on this host: kvm or tcg, and why.
	Accelerator func() string
	// Template says which template a VM may start from; nil where there is no warm start.
	Template func(ctx context.Context, spec *proto.VMSpec) (template.Want, error)
	// Keychain has the key of the stored secrets; nil is a file of ours. Transport reaches their providers; nil is the usual one.
	Keychain  credential.Keychain
	Transport http.RoundTripper
	// Worker is the program that is a worker and its first arguments; "--home H --dir VMDIR" follow.
	Worker []string
	// WorkerName is argv[0] of a worker; empty means Worker[0].
	WorkerName string
	// WorkerEnv is the environment of a worker: empty but in tests.
	WorkerEnv []string
	// before is told each step of changing state on disk before it is done, in tests that lose power there.
	before func(step string)
}

func (o *Options) step(name string) {
	if o.before != nil {
		o.before(name)
	}
}

// Service holds the VMs. Its methods may be called at the same time.
type Service struct {
	opts    Options
	log     *slog.Logger
	started time.Time
	// ctx ends the watchers and whatever else runs in the background; wg waits for them.
	ctx    context.Context //nolint:containedctx // the life of the service, not of a call
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// mu guards what follows. It is taken before the mutex of a vm, never after, and never held over I/O on a worker.
	mu  sync.Mutex
	vms map[string]*vm
	// notices are what a user should know of the state found on disk: files moved aside.
	notices []string

	templates *templates
	records   *records

	pool pool

	// secrets are the owner's credentials.
	secrets *credential.Store
	refused refusedTokens

	// asked is closed and replaced when the questions of some VM change.
	asked chan struct{}

	// registryMu serializes writes of the registry.
	registryMu sync.Mutex
}

// New reads the state on disk, takes over the workers that still run and reaps what is left of those that do not. The caller
// must hold the lock of the home. Close it when done.
func New(ctx context.Context, opts Options) (*Service, error) {
	s := &Service{opts: opts, log: opts.Log, started: time.Now(), vms: map[string]*vm{}, asked: make(chan struct{})}
	s.secrets = credential.Open(opts.Home, opts.Keychain, opts.Log)
	s.ctx, s.cancel = context.WithCancel(ctx)
	if err := makeDirs(opts.Home); err != nil {
		return nil, err
	}
	if err := s.openRecords(ctx); err != nil {
		s.cancel()
		return nil, err
	}
	s.wg.Go(s.keepRecords)
	s.templates = newTemplates(&s.opts)
	if err := s.templates.sweep(); err != nil {
		s.log.Warn("cannot sweep templates", "error", err)
	}
	if err := image.Images(opts.Home).Sweep(); err != nil {
		s.log.Warn("cannot sweep images", "error", err)
	}
	if err := s.takeOver(ctx); err != nil {
		s.Close()
		return nil, err
	}
	s.records.later(s.reconcileRecords)
	s.records.later(s.sweepRecords)
	s.wg.Go(s.suspendIdle)
	s.wg.Go(s.renewSecrets)
	s.wg.Go(s.followServers)
	s.startPool()
	return s, nil
}

// Close stops watching. VMs keep running.
//
// Those of the pool are nobody's, and end.
func (s *Service) Close() {
	s.closePool()
	s.cancel()
	s.wg.Wait()
	s.templates.close()
}

// OwnHome makes CAPSEM_HOME with mode 0700 and refuses one that belongs to somebody else.
func OwnHome(home paths.Home) error {
	if err := os.MkdirAll(home.Dir(), 0o700); err != nil {
		return fmt.Errorf("make CAPSEM_HOME: %w", err)
	}
	info, err := os.Stat(home.Dir())
	if err != nil {
		return fmt.Errorf("look at CAPSEM_HOME: %w", err)
	}
	if !info.IsDir() {
		return fault.New(fault.Conflict, "%s is not a directory", home.Dir()).WithHint("set CAPSEM_HOME to a directory")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Forbidden, "%s belongs to user %d, and this is user %d", home.Dir(), st.Uid, os.Geteuid()).
			WithHint("run capsem as that user, or set CAPSEM_HOME to a directory of your own")
	}
	if info.Mode().Perm() != 0o700 {
		if err := os.Chmod(home.Dir(), 0o700); err != nil {
			return fmt.Errorf("close CAPSEM_HOME to others: %w", err)
		}
	}
	return nil
}

func makeDirs(home paths.Home) error {
	for _, dir := range []string{home.Run(), home.Instances(), home.Sessions(), home.PersistentDir(), home.Failed()} {
		err := os.MkdirAll(dir, 0o700)
		if errors.Is(err, syscall.ENOSPC) {
			return fault.Wrap(err, fault.NoSpace, "no space left to make %s", dir).WithHint("free some space on that disk")
		}
		if err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

// notice remembers something a user should know, and logs it.
func (s *Service) notice(text string, args ...any) {
	s.log.Warn(text, args...)
	line := strings.TrimSuffix(text+" "+fmt.Sprintln(args...), "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notices = append(s.notices, line)
}
