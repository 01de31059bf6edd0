package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// Supported reports whether programs of the owner's can be started here: only where they can be kept to what they need.
func Supported() error {
	// ABI 4 is the first that can refuse connections; below it a program could reach services of the host.
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || v < 4 {
		return errors.New("MCP servers that are programs need Landlock, which this kernel does not have (Linux 6.7 or later)")
	}
	return nil
}

// Launch locks the process and becomes the program. It only returns with an error.
func Launch(p *Program) error {
	runtime.LockOSThread()
	if err := Supported(); err != nil {
		return err
	}
	unix.Umask(0o077)
	if err := limits(); err != nil {
		return err
	}
	if err := os.Chdir(p.Dir); err != nil {
		return fmt.Errorf("enter the program's directory: %w", err)
	}
	dropRights()
	if err := restrictFiles(p); err != nil {
		return err
	}
	if err := filter(programFilter(p)); err != nil {
		return err
	}
	if err := closeOthers(); err != nil {
		return err
	}
	err := unix.Exec(p.Path, append([]string{p.Path}, p.Args...), p.Env)
	return fmt.Errorf("start %s: %w", p.Path, err)
}

// system are the paths that programs read to run at all.
func system() []string {
	return []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/proc", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/etc/ssl",
		"/etc/ca-certificates", "/etc/pki", "/etc/crypto-policies", "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
		"/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime", "/etc/timezone", "/etc/ld.so.cache", "/etc/ld.so.conf",
		"/etc/ld.so.conf.d", "/etc/alternatives", "/etc/mime.types", "/etc/os-release", "/etc/debian_version", "/etc/locale.alias", "/run/systemd/resolve",
	}
}

// restrictFiles leaves the program the system to read, its own directory, and what the owner has opened to it.
func restrictFiles(p *Program) error {
	rules := []landlock.Rule{landlock.RWFiles("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom").IgnoreIfMissing()}
	for _, path := range append(system(), append([]string{p.Path}, p.Read...)...) {
		rule, err := ruleFor(path, false)
		if err != nil {
			return err
		}
		rules = append(rules, rule...)
	}
	for _, path := range append([]string{p.Dir}, p.Write...) {
		rule, err := ruleFor(path, true)
		if err != nil {
			return err
		}
		rules = append(rules, rule...)
	}
	config := landlock.V7.BestEffort()
	if err := config.RestrictPaths(rules...); err != nil {
		return fmt.Errorf("restrict files: %w", err)
	}
	if err := config.RestrictScoped(); err != nil {
		return fmt.Errorf("restrict signals and sockets: %w", err)
	}
	if p.Network {
		return nil
	}
	if err := config.RestrictNet(); err != nil {
		return fmt.Errorf("restrict network: %w", err)
	}
	return nil
}

func ruleFor(path string, write bool) ([]landlock.Rule, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at %s: %w", path, err)
	case info.IsDir() && write:
		return []landlock.Rule{landlock.RWDirs(path)}, nil
	case info.IsDir():
		return []landlock.Rule{landlock.RODirs(path)}, nil
	case write:
		return []landlock.Rule{landlock.RWFiles(path)}, nil
	}
	return []landlock.Rule{landlock.ROFiles(path)}, nil
}

// programFilter refuses what no server has a use for. Sockets are those over IP, if any: on sockets with names in the file system other
// services of the host listen, capsem's among them, and Landlock does not keep anybody from connecting to those.
func programFilter(p *Program) []seccomp.SyscallGroup {
	groups := []seccomp.SyscallGroup{{Names: known(never()), Action: refuse}}
	refused := func(family uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: "socket", Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.Equal, Value: family}}}
	}
	if !p.Network {
		return append(groups, seccomp.SyscallGroup{Names: []string{"socket"}, Action: refuse})
	}
	other := []seccomp.Condition{
		{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_INET},
		{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_INET6},
		{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_NETLINK}, // lists of addresses and routes
	}
	return append(groups, seccomp.SyscallGroup{
		NamesWithCondtions: []seccomp.NameWithConditions{{Name: "socket", Conditions: other}, refused(unix.AF_UNIX)}, Action: refuse,
	})
}

func limits() error {
	for what, most := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 4096, unix.RLIMIT_MEMLOCK: 64 << 10} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit the program: %w", err)
		}
	}
	return nil
}

// dropRights takes root's powers from a program that is started by root; for others there are none, and the calls fail.
func dropRights() {
	const noRoot, noRootLocked = 1 << 0, 1 << 1
	for c := range uintptr(64) {
		if unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) != nil {
			break
		}
	}
	_ = unix.Prctl(unix.PR_SET_SECUREBITS, noRoot|noRootLocked, 0, 0, 0)
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// closeOthers has all descriptors but the first three closed when the program starts.
func closeOthers() error {
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return nil
}

// programDirs are the directories of the system that programs are in.
var programDirs = []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"}

// Wrap changes nothing here: a process of ours locks itself up.
func Wrap(*exec.Cmd, Kind) {}
