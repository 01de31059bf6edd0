package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Wrap has a process of ours start with nothing but what a kind leaves it: here rights cannot be taken from a process that runs. args[0]
// is the name under which the binary is linked; sandbox-exec gives a program no other name than its own, so it becomes the hidden word.
func Wrap(cmd *exec.Cmd, kind Kind) {
	exe := real(cmd.Path)
	cmd.Args = profileOf(kind, exe).command(exe, append([]string{strings.TrimPrefix(cmd.Args[0], "capsem-")}, cmd.Args[1:]...)...)
	cmd.Path = macSandbox
}

// LockNetworkOnly checks that the process was started as Wrap has it.
func LockNetworkOnly() error { return locked() }

// LockAll checks that, as above.
func LockAll() error { return locked() }

// locked is an error in a process that can read what no profile lets it.
func locked() error {
	f, err := os.Open("/Users") // there on every Mac, and open to everybody
	if err == nil {
		return errors.Join(errors.New("lock up the process: it was not started under "+macSandbox), f.Close())
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("lock up the process: look whether it is: %w", err)
	}
	return nil
}

// Supported reports whether programs of the owner's can be started here: only where they can be kept to what they need.
func Supported() error {
	if _, err := os.Stat(macSandbox); err != nil {
		return errors.New("MCP servers that are programs need " + macSandbox + ", which this system does not have")
	}
	return nil
}

// Launch becomes the program, under its profile. It only returns with an error.
func Launch(p *Program) error {
	if err := Supported(); err != nil {
		return err
	}
	unix.Umask(0o077)
	for what, most := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 4096} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit the program: %w", err)
		}
	}
	if err := os.Chdir(p.Dir); err != nil {
		return fmt.Errorf("enter the program's directory: %w", err)
	}
	for fd := 3; fd < 4096; fd++ {
		unix.CloseOnExec(fd)
	}
	args := profileFor(p, func(path string) []string {
		if target := real(path); target != path {
			return []string{path, target}
		}
		return []string{path}
	}).command(p.Path, p.Args...)
	err := unix.Exec(macSandbox, args, p.Env)
	return fmt.Errorf("start %s: %w", p.Path, err)
}

// real is a path without links, which is what profiles see. One that leads nowhere stays, and then opens nothing.
func real(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	return target
}

// programDirs are the directories of the system that programs are in.
var programDirs = []string{"/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"}
