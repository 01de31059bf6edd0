//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/agent"
	"capsem/core/guest/audit"
	"capsem/core/guest/boot"
	"capsem/core/guest/dnsproxy"
	"capsem/core/guest/exec"
	"capsem/core/guest/identity"
	"capsem/core/guest/layout"
	"capsem/core/guest/netproxy"
	"capsem/core/guest/pid1"
	"capsem/core/guest/proc"
	"capsem/core/guest/procinfo"
	"capsem/core/guest/relay"
	"capsem/core/guest/share"
	"capsem/core/guest/stage"
	"capsem/core/guest/terminal"
	"capsem/core/link"
	"capsem/core/link/serial"
	"capsem/core/link/vsock"
	"capsem/core/proto"
)

// portName is the virtio-serial port of the link.
const portName = "capsem.link"

// runAgent serves the host until it is killed: the signals that end everything else at a shutdown do not end it, PID 1 does.
func runAgent(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	heed := make(chan os.Signal, 1)
	signal.Notify(heed, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cmdline, err := readCmdline()
	if err != nil {
		return err
	}
	if cmdline.Procs > 0 {
		runtime.GOMAXPROCS(cmdline.Procs)
	}
	groups, err := proc.NewCgroups(layout.CgroupDir)
	if err != nil {
		log.Warn("agent: no cgroups; kills go by session", "err", err)
	}
	a, closeAll, err := newAgent(groups, log)
	if err != nil {
		return err
	}
	defer closeAll()
	var relaying sync.WaitGroup
	defer relaying.Wait()
	relaying.Go(func() { relayWhenUp(ctx, a, log) })
	relaying.Go(func() { reportPrograms(ctx, a, log) })
	relaying.Go(func() { carryNetwork(ctx, a, log) })
	err = serve(ctx, cmdline.Carrier, a, log)
	stop()
	a.Wait()
	return err
}

// relayWhenUp serves other guest processes. It begins once the link is up, not to hold that up.
func relayWhenUp(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	if _, err := a.Session(ctx); err != nil {
		return
	}
	socket, err := relay.Listen(layout.LinkSocket)
	if err != nil {
		log.Warn("agent: no socket for guest processes", "err", err)
		return
	}
	relay.Server{Links: a, Log: log}.Serve(ctx, socket)
}

// reportPrograms tells the host of every program that is started. It begins once the link is up, too.
func reportPrograms(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	if _, err := a.Session(ctx); err != nil {
		return
	}
	dial := func(ctx context.Context) (io.WriteCloser, error) {
		s, err := a.Direct(ctx)
		if err != nil {
			return nil, err //nolint:wrapcheck // says what it did
		}
		return s.Open(ctx, proto.StreamHeader{Port: proto.PortAudit}) //nolint:wrapcheck // says what it did
	}
	if err := (audit.Reporter{Dial: dial, Log: log}).Run(ctx); err != nil {
		log.Warn("agent: programs that are started are not reported", "err", err)
	}
}

// carryNetwork hands connections and name lookups of the guest to the host.
func carryNetwork(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	processes := procinfo.New("/proc")
	defer processes.Close()
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() {
		if err := (netproxy.Server{Links: a, Processes: processes, Log: log}).Run(ctx); err != nil {
			log.Error("agent: connections are not carried to the host", "err", err)
		}
	})
	both.Go(func() {
		if err := (dnsproxy.Server{Links: a, Processes: processes, Log: log}).Run(ctx); err != nil {
			log.Error("agent: name lookups are not carried to the host", "err", err)
		}
	})
}

func readCmdline() (boot.Cmdline, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return boot.Cmdline{}, fmt.Errorf("read kernel command line: %w", err)
	}
	return boot.ParseCmdline(string(text)) //nolint:wrapcheck // says what is wrong
}

func newAgent(groups *proc.Cgroups, log *slog.Logger) (*agent.Agent, func(), error) {
	report, err := stage.Load(layout.BootReport)
	if err != nil {
		log.Warn("agent: no boot report", "err", err)
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, nil, fmt.Errorf("read boot id: %w", err)
	}
	commands, err := exec.New(groups, log)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // says what it did
	}
	terminals, mounts := terminal.New(groups, log), &share.Mounts{}
	key, value, _ := strings.Cut(boot.RestartedEnv, "=")
	a := agent.New(agent.Config{
		Log: log, BootID: strings.TrimSpace(string(bootID)), Restarted: os.Getenv(key) == value, Report: report,
		Identity: &identity.Setter{Kernel: identity.Real{}}, Exec: commands, Terminals: terminals, Power: power{},
		Mounts: mounts,
		Mount: func(ctx context.Context, s proto.Share, dial func(context.Context) (io.ReadWriteCloser, error)) error {
			return mounts.Attach(ctx, share.Options{Dir: s.Dir, Dial: dial, ReadOnly: s.ReadOnly, Furnish: s.Furnish, Log: log})
		},
	})
	return a, func() {
		terminals.Close()
		groups.Close()
		if err := commands.Close(); err != nil {
			log.Warn("agent: close", "err", err)
		}
	}, nil
}

// serve gives the agent one carrier after another.
func serve(ctx context.Context, carrier boot.Carrier, a *agent.Agent, log *slog.Logger) error {
	open, err := opener(carrier, log)
	if err != nil {
		return err
	}
	for {
		c, err := open(ctx)
		if err != nil {
			return fmt.Errorf("open %s carrier: %w", carrier, err)
		}
		acceptor := link.NewAcceptor(c, log)
		err = a.Run(ctx, acceptor)
		err = errors.Join(err, acceptor.Close())
		if ctx.Err() != nil {
			return err
		}
		log.Warn("agent: carrier broke, opening it again", "err", err)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func opener(carrier boot.Carrier, log *slog.Logger) (func(context.Context) (io.ReadWriteCloser, error), error) {
	if carrier == boot.Serial {
		return func(ctx context.Context) (io.ReadWriteCloser, error) { return serial.Open(ctx, portName) }, nil
	}
	l, err := vsock.Listen(log)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	return func(ctx context.Context) (io.ReadWriteCloser, error) { return l.Accept(ctx) }, nil
}

// power tells PID 1.
type power struct{}

// Off powers off or restarts.
func (power) Off(graceMS uint32, reboot bool) error {
	if err := os.WriteFile(layout.GraceFile, []byte(strconv.FormatUint(uint64(graceMS), 10)), 0o600); err != nil {
		return fmt.Errorf("write grace: %w", err)
	}
	sig := pid1.SignalPoweroff
	if reboot {
		sig = pid1.SignalReboot
	}
	if err := unix.Kill(1, sig); err != nil {
		return fmt.Errorf("tell PID 1: %w", err)
	}
	return nil
}
