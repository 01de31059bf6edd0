package main

import (
	"bufio"
	"context"
	"encoding/json"
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
	if err := os.RemoveAll(s.disk); err != nil {
		return 0, fmt.Errorf("make a disk: %w", err)
	}
	if err := s.tpl.CopyDisk(s.disk); err != nil {
		return 0, err //nolint:wrapcheck // says what it did
	}
	extra, ours, err := s.files()
	defer func() {
		for _, f := range extra {
			f.Close()
		}
	}()
	if err != nil || len(ours) != 3 {
		return 0, errors.Join(err, fmt.Errorf("%d sockets instead of 3", len(ours)))
	}
	vm := &bareVM{cmd: exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)}
	vm.cmd.ExtraFiles = extra
	var words strings.Builder
	vm.cmd.Stderr = &words
	began := time.Now()
	if err := vm.cmd.Start(); err != nil {
		return 0, fmt.Errorf("start QEMU: %w", err)
	}
	defer vm.close()
	defer ours[0].Close()
	defer ours[1].Close()
	err = s.proceed(ours[0])
	if err == nil {
		err = vm.attach(ctx, ours[2])
	}
	if err == nil {
		_, err = vm.run(ctx, &proto.ExecRequest{ID: "bench", Argv: []string{"true"}})
	}
	if err != nil {
		return 0, fmt.Errorf("%w; QEMU said %q", err, words.String())
	}
	return time.Since(began), nil
}

// proceed has QEMU load the state and run.
func (s *restoreSpec) proceed(conn net.Conn) error {
	r := bufio.NewReader(conn)
	ask := func(line string) (string, error) {
		if _, err := conn.Write([]byte(line + "\n")); err != nil {
			return "", fmt.Errorf("ask QEMU: %w", err)
		}
		for {
			answer, err := r.ReadString('\n')
			if err != nil {
				return "", fmt.Errorf("ask QEMU: %w", err)
			}
			if strings.Contains(answer, `"error"`) {
				return "", fmt.Errorf("QEMU says %s", answer)
			}
			if strings.Contains(answer, `"return"`) {
				return answer, nil
			}
		}
	}
	for _, line := range []string{
		`{"execute":"qmp_capabilities"}`,
		`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}`,
		`{"execute":"migrate-incoming","arguments":{"uri":"exec:cat ` + s.tpl.Path(template.StateFile) + `"}}`,
	} {
		if _, err := ask(line); err != nil {
			return err
		}
	}
	for {
		answer, err := ask(`{"execute":"query-status"}`)
		if err != nil {
			return err
		}
		var st struct{ Return struct{ Status string } }
		if err := json.Unmarshal([]byte(answer), &st); err != nil {
			return fmt.Errorf("ask QEMU: %w", err)
		}
		if st.Return.Status != "inmigrate" {
			_, err := ask(`{"execute":"cont"}`)
			return err
		}
	}
}
