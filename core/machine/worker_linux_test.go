package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/guest/agent"
	"capsem/core/guest/exec"
	"capsem/core/guest/identity"
	"capsem/core/guest/terminal"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/fake"
	"capsem/core/lifecycle"
	"capsem/core/link"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// patience is for what must happen; no test waits for it when all is well.
const patience = 60 * time.Second

// quiet throws logs away.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// kernel is a guest's kernel that only listens.
type kernel struct{}

func (kernel) Now() time.Time           { return time.Now() }
func (kernel) SetClock(time.Time) error { return nil }
func (kernel) Credit([]byte, int) error { return nil }
func (kernel) SetHostname(string) error { return nil }
func (kernel) NewBootID() error         { return nil }

// power is the power switch of the fake machine that runs now.
type power struct {
	mu    sync.Mutex
	press fake.Power
}

func (p *power) set(press fake.Power) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.press = press
}

// Off does what PID 1 does.
func (p *power) Off(_ uint32, reboot bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reboot {
		p.press(hypervisor.GuestReboot)
	} else {
		p.press(hypervisor.GuestPoweroff)
	}
	return nil
}

// realGuest is the real agent, running in this process, with this system's commands and a made-up kernel.
func realGuest(t *testing.T) func(context.Context, net.Conn, fake.Power) {
	t.Helper()
	commands, err := exec.New(nil, quiet())
	if err != nil {
		t.Fatal(err)
	}
	terminals := terminal.New(nil, quiet())
	root, off := t.TempDir(), &power{}
	for _, dir := range []string{"etc", "run"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a := agent.New(agent.Config{
		Log: quiet(), BootID: "boot", Identity: &identity.Setter{Kernel: kernel{}, Root: root},
		Exec: commands, Terminals: terminals, Power: off,
	})
	t.Cleanup(func() {
		a.Wait()
		terminals.Close()
		if err := commands.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(ctx context.Context, carrier net.Conn, press fake.Power) {
		off.set(press)
		acceptor := link.NewAcceptor(carrier, quiet())
		_ = a.Run(ctx, acceptor) // the end of the carrier
		_ = acceptor.Close()     // gone already
	}
}

// worker is a Worker that runs.
type worker struct {
	t    testing.TB
	home paths.Home
	dir  paths.VM
	id   string
	w    *Worker
	stop context.CancelFunc
	done chan error
}

// change is how a test's worker differs from the usual.
type change func(spec *proto.VMSpec, cfg *Config)

// start runs a worker around a guest, without waiting for that.
func start(t testing.TB, guest func(context.Context, net.Conn, fake.Power), changes ...change) *worker {
	t.Helper()
	home := paths.Home(t.TempDir())
	k := &worker{t: t, home: home, id: "vm-1", dir: home.Session("vm-1"), done: make(chan error, 1)}
	for _, dir := range []string{home.Instances(), k.dir.Dir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	spec := proto.VMSpec{
		ID: k.id, CPUs: 1, MemoryMB: 256, DiskMB: 1024, Env: map[string]string{"OF_VM": "yes", "PATH": os.Getenv("PATH")},
		AssetVersion: "1", Accelerator: "tcg", MachineID: strings.Repeat("0a", 16), ReadyTimeoutMS: patience.Milliseconds(),
	}
	cfg := Config{
		Home: home, Dir: k.dir, Driver: fake.New(fake.Options{Guest: guest}), DiskFormat: hypervisor.Raw, Log: quiet(),
		Resolve: func(context.Context, hypervisor.Accelerator) (hypervisor.Accelerator, string, error) {
			return hypervisor.TCG, "test", nil
		},
		Assets: func(context.Context, string) (*Boot, error) { return bootImage(t), nil },
	}
	for _, c := range changes {
		c(&spec, &cfg)
	}
	k.describe(k.dir, spec)
	var err error
	if k.w, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	k.stop = stop
	over := make(chan struct{})
	go func() {
		k.done <- k.w.Run(ctx)
		close(over)
	}()
	t.Cleanup(func() {
		k.w.end(0, true)
		<-over
	})
	return k
}

// describe writes vm.json.
func (k *worker) describe(dir paths.VM, spec proto.VMSpec) {
	k.t.Helper()
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(dir.Spec(), text, 0o600)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

func bootImage(t testing.TB) *Boot {
	path := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Error(err)
	}
	open := func() *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	b := &Boot{Kernel: open(), Initrd: open(), RootFS: open(), RootFSType: "squashfs", Arch: "amd64"}
	b.Close = func() error { return errors.Join(b.Kernel.Close(), b.Initrd.Close(), b.RootFS.Close()) }
	return b
}

// dial connects once the worker listens.
func (k *worker) dial() *workerclient.Conn {
	k.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		c, err := workerclient.Dial(k.t.Context(), k.home.InstanceSocket(k.id))
		if err == nil {
			k.t.Cleanup(func() { _ = c.Close() })
			return c
		}
		select {
		case <-tick.C:
		case <-limit:
			k.t.Fatal(err)
		}
	}
}

// until waits for a status.
func (k *worker) until(what string, ok func(proto.WorkerStatus) bool) proto.WorkerStatus {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	changes, err := k.dial().Watch(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	var last proto.WorkerStatus
	for last = range changes {
		if ok(last) {
			return last
		}
	}
	k.t.Fatalf("never: %s; the last status is %+v", what, last)
	return last
}

func (k *worker) ready() proto.WorkerStatus {
	k.t.Helper()
	return k.until("running", func(st proto.WorkerStatus) bool { return st.State == lifecycle.Running })
}

// ended waits for the end of the worker and returns what it left in the VM's directory.
func (k *worker) ended() (st proto.WorkerStatus) {
	k.t.Helper()
	select {
	case err := <-k.done:
		if err != nil {
			k.t.Fatal(err)
		}
	case <-time.After(patience):
		k.t.Fatal("the worker does not end")
	}
	text, err := os.ReadFile(k.dir.Status())
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return st
}

// stream asks for something that takes the connection over.
func (k *worker) stream(req proto.WorkerRequest) net.Conn {
	k.t.Helper()
	conn, err := k.dial().Stream(k.t.Context(), req)
	if err != nil {
		k.t.Fatal(err)
	}
	return conn
}

// shell starts a command.
func (k *worker) shell(text string) net.Conn {
	k.t.Helper()
	return k.stream(proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: text, Dir: "/", Stdin: true}})
}

// call asks one thing that must succeed.
func (k *worker) call(req proto.WorkerRequest) proto.WorkerReply {
	k.t.Helper()
	reply, err := k.dial().Call(k.t.Context(), req)
	if err != nil {
		k.t.Fatalf("%s: %v", req.Op, err)
	}
	return reply
}

// output is what came from a stream.
type output struct {
	stdout, stderr string
	started        proto.Started
	exit           *proto.ExitStatus
	fail           *proto.StreamError
}

// collect reads a stream to its end.
func collect(t testing.TB, conn io.Reader) (o output) {
	t.Helper()
	r := proto.NewStreamReader(conn)
	for {
		kind, data, err := r.Next()
		if err != nil {
			return o
		}
		switch kind {
		case proto.KindStdout:
			o.stdout += string(data)
		case proto.KindStderr:
			o.stderr += string(data)
		case proto.KindStarted:
			err = json.Unmarshal(data, &o.started)
		case proto.KindExit:
			err = json.Unmarshal(data, &o.exit)
		case proto.KindError:
			err = json.Unmarshal(data, &o.fail)
		default:
			t.Errorf("a frame of kind %d", kind)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
