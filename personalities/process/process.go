// Package process is capsem-process: the worker of one VM. The service starts one for each VM, with an empty environment and in
// a session of its own; it ends with its VM.
package process

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"capsem/core/assets"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/machine"
	"capsem/core/paths"
)

const (
	// gcPercent trades a little time for memory: there may be ten workers. memoryLimit (bytes, soft) is far above what one that is busy
	// has in use: near it Go collects all the time, and everything takes twice as long.
	gcPercent   = 50
	memoryLimit = 256 << 20
)

// Run is the worker: --home H --dir VMDIR. It returns when the VM has ended. SIGTERM and SIGINT, as the end of ctx, power the
// guest off in order. With --template-ram FD a new VM goes on from a template whose memory is that file; with --make-template the
// directory is a draft that is made into a template.
func Run(ctx context.Context, env entry.Env) error {
	o, err := parse(env.Args)
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	if err := harden(); err != nil {
		return err
	}
	out, err := openLog(o.dir.Dir(), filepath.Base(o.dir.ProcessLog()))
	if err != nil {
		return err
	}
	defer out.Close()
	level := new(slog.LevelVar)
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level}))
	err = run(ctx, o, level, log)
	if err != nil {
		log.Error("the worker ends", "error", err)
	}
	return err
}

func run(ctx context.Context, o options, level *slog.LevelVar, log *slog.Logger) error {
	// The service's end, or that of a terminal, is not the VM's.
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg := machine.Config{Home: o.home, Dir: o.dir, Log: log, Assets: boot(o.home)}
	platform(&cfg)
	var err error
	if o.make {
		_, err := machine.MakeTemplate(ctx, cfg)
		return err //nolint:wrapcheck // says what it did
	}
	if o.ram > 2 {
		syscall.CloseOnExec(o.ram) // the hypervisor gets it only where it is to
		cfg.RAM = os.NewFile(uintptr(o.ram), "template")
		defer cfg.RAM.Close()
	}
	if cfg.MCP, err = os.Executable(); err != nil {
		log.Warn("there are no MCP servers: capsem's own binary cannot be found", "error", err)
	}
	w, err := machine.New(cfg)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if text := w.LogLevel(); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			log.Warn("unknown log level", "level", text)
		}
	}
	return w.Run(ctx) //nolint:wrapcheck // says what it did
}

// options are the words of the command line.
type options struct {
	home paths.Home
	dir  paths.VM
	ram  int
	make bool
}

// parse takes the command line.
func parse(args []string) (options, error) {
	flags := flag.NewFlagSet("capsem-process", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	home := flags.String("home", "", "the installation")
	dir := flags.String("dir", "", "the VM's directory")
	ram := flags.Int("template-ram", 0, "the file descriptor of a template's memory")
	making := flags.Bool("make-template", false, "make a template")
	err := flags.Parse(args)
	if err != nil || flags.NArg() > 0 || !filepath.IsAbs(*home) || !filepath.IsAbs(*dir) {
		return options{}, fault.New(fault.Invalid, "a worker takes --home and --dir, both absolute").
			WithHint("the service starts workers; see capsem help create")
	}
	return options{paths.Home(filepath.Clean(*home)), paths.VM(filepath.Clean(*dir)), *ram, *making}, nil
}

// boot opens what VMs boot from, held to the manifest.
func boot(home paths.Home) func(context.Context, string) (*machine.Boot, error) {
	return func(ctx context.Context, version string) (*machine.Boot, error) {
		set, err := assets.Load(home, runtime.GOARCH, version)
		if err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
		files, err := set.Open(ctx)
		if err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
		return &machine.Boot{
			Kernel: files.Kernel, Initrd: files.Initrd, RootFS: files.RootFS,
			RootFSType: set.RootFSType(), Arch: set.Arch, Close: files.Close,
		}, nil
	}
}
