package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"capsem/core/proto"
	"capsem/core/template"
)

// restoreSpec is a VM that goes on from a template, as QEMU alone would run it: the very command line of capsem's, without its
// sandbox, on a disk of its own that was copied beforehand.
type restoreSpec struct {
	argv []string
	pid  int
	tpl  *template.Template
	// root is the root image, disk the system disk.
	root, disk string
}

// restoreLike reads the spec off a running VM.
func restoreLike(pid int, tpl *template.Template, set, disk string) (*restoreSpec, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	roots, _ := filepath.Glob(filepath.Join(set, "rootfs.*"))
	if err == nil && len(roots) != 1 {
		err = errors.New("no single root image in " + set)
	}
	if err != nil {
		return nil, fmt.Errorf("read the command line of QEMU: %w", err)
	}
	argv := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	for i := 0; i+1 < len(argv); i++ {
		if argv[i] == "-sandbox" {
			argv = append(argv[:i:i], argv[i+2:]...)
		}
	}
	return &restoreSpec{argv: argv, pid: pid, tpl: tpl, root: roots[0], disk: disk}, nil
}

// files opens what the running QEMU was given, under the same numbers: new sockets in place of its own (ours are returned, in order),
// the other disk in place of its own.
func (s *restoreSpec) files() (extra []*os.File, ours []net.Conn, err error) {
	most := 0
	for _, found := range fdNumber.FindAllStringSubmatch(strings.Join(s.argv, " "), -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			return nil, nil, fmt.Errorf("look at QEMU's files: %w", err)
		}
		most = max(most, n)
	}
	for n := 3; n <= most; n++ {
		path := fmt.Sprintf("/proc/%d/fd/%d", s.pid, n)
		word := fmt.Sprintf("fd=%d,set=", n) // QEMU has moved these
		set := slices.IndexFunc(s.argv, func(a string) bool { return strings.HasPrefix(a, word) })
		target, err := os.Readlink(path)
		if err != nil {
			return extra, ours, fmt.Errorf("look at QEMU's files: %w", err)
		}
		var f *os.File
		switch {
		case set >= 0 && s.argv[set] == word+"1":
			f, err = os.Open(s.root)
		case set >= 0:
			f, err = os.OpenFile(s.disk, os.O_RDWR, 0)
		case strings.HasPrefix(target, "socket:"):
			var conn net.Conn
			if conn, f, err = socketPair(); err == nil {
				ours = append(ours, conn)
			}
		default:
			f, err = os.Open(path)
		}
		if err != nil {
			return extra, ours, fmt.Errorf("open QEMU's files: %w", err)
		}
		extra = append(extra, f)
	}
	return extra, ours, nil
}

// fdNumber is how a command line names a file that QEMU was given.
var fdNumber = regexp.MustCompile(`\bfd[=/](\d+)`)

// run restores the VM and returns once the first command has been answered, with the time that took.
func (s *restoreSpec) run(ctx context.Context) (time.Duration, error) {
	vm, err := s.start(ctx)
	if err != nil {
		return 0, err
	}
	defer vm.close()
	return vm.answered, nil
}

// saved restores the VM, has it write so many MB to its memory, and returns how long the monitor's own migrate to a file takes, during
// which the machine stands still.
func (s *restoreSpec) saved(ctx context.Context, mb int, file string) (time.Duration, error) {
	vm, err := s.start(ctx)
	if err != nil {
		return 0, err
	}
	defer vm.close()
	write := fmt.Sprintf("head -c %d /dev/urandom > /dev/shm/dirty", mb<<20)
	if _, err := vm.run(ctx, &proto.ExecRequest{ID: "write", Command: write}); err != nil {
		return 0, err
	}
	began := time.Now()
	for _, line := range []string{
		`{"execute":"stop"}`,
		`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":false}]}}`,
		`{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":1000000000000}}`,
		`{"execute":"migrate","arguments":{"uri":"exec:cat > ` + file + `"}}`,
	} {
		if _, err := vm.monitor.ask(line); err != nil {
			return 0, err
		}
	}
	err = vm.monitor.until("query-migrate", "completed", "failed")
	return time.Since(began), err
}

// restored is a VM that goes on from a template; answered is when its first command was.
type restored struct {
	*bareVM
	ours     []net.Conn
	monitor  *monitor
	answered time.Duration
}

func (r *restored) close() {
	for _, conn := range r.ours {
		conn.Close()
	}
	r.bareVM.close()
}

// start restores the VM and has it answer a command.
func (s *restoreSpec) start(ctx context.Context) (*restored, error) {
	if err := os.RemoveAll(s.disk); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	if err := s.tpl.CopyDisk(s.disk); err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	extra, ours, err := s.files()
	defer func() {
		for _, f := range extra {
			f.Close()
		}
	}()
	if err != nil || len(ours) != 3 {
		return nil, errors.Join(err, fmt.Errorf("%d sockets instead of 3", len(ours)))
	}
	vm := &restored{bareVM: &bareVM{cmd: exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)}, ours: ours[:2], monitor: newMonitor(ours[0])}
	vm.cmd.ExtraFiles = extra
	var words strings.Builder
	vm.cmd.Stderr = &words
	began := time.Now()
	if err := vm.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	err = s.proceed(vm.monitor)
	if err == nil {
		err = vm.attach(ctx, ours[2])
	}
	if err == nil {
		_, err = vm.run(ctx, &proto.ExecRequest{ID: "bench", Argv: []string{"true"}})
	}
	if err != nil {
		vm.close()
		return nil, fmt.Errorf("%w; QEMU said %q", err, words.String())
	}
	vm.answered = time.Since(began)
	return vm, nil
}

// proceed has QEMU load the state and run.
func (s *restoreSpec) proceed(m *monitor) error {
	for _, line := range []string{
		`{"execute":"qmp_capabilities"}`,
		`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}`,
		`{"execute":"migrate-incoming","arguments":{"uri":"exec:cat ` + s.tpl.Path(template.StateFile) + `"}}`,
	} {
		if _, err := m.ask(line); err != nil {
			return err
		}
	}
	if err := m.until("query-status", "paused", "internal-error"); err != nil {
		return err
	}
	_, err := m.ask(`{"execute":"cont"}`)
	return err
}
