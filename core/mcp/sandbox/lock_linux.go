package sandbox

import (
	"fmt"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// LockNetworkOnly leaves a process TCP over IP and the descriptors it has: no files, no programs, no other sockets, no other processes.
// It holds for all threads.
func LockNetworkOnly() error { return lock(true) }

// LockAll leaves a process nothing but the descriptors it has.
func LockAll() error { return lock(false) }

func lock(tcp bool) error {
	if err := alone(); err != nil {
		return err
	}
	// Where the kernel has no Landlock, the filter below stands alone: it refuses to open anything at all.
	config := landlock.V7.BestEffort()
	if tcp {
		if err := config.RestrictPaths(); err != nil {
			return fmt.Errorf("restrict files: %w", err)
		}
		if err := config.RestrictScoped(); err != nil {
			return fmt.Errorf("restrict signals and sockets: %w", err)
		}
	} else if err := config.Restrict(); err != nil {
		return fmt.Errorf("restrict files and network: %w", err)
	}
	refused := append(append([]string{}, never()...), files()...)
	refused = append(refused, programs()...)
	groups := []seccomp.SyscallGroup{{Names: known(refused), Action: refuse}}
	groups = append(groups, sockets(tcp))
	return filter(groups)
}

// refuse makes a call fail with EPERM.
const refuse = seccomp.ActionErrno | seccomp.Action(unix.EPERM)

// filter loads a filter that allows the rest.
func filter(groups []seccomp.SyscallGroup) error {
	if err := nativeOnly(); err != nil {
		return err
	}
	err := seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: groups},
	})
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return nil
}

// alone keeps others of the same user from looking into the process.
func alone() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid tracing: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
}

// sockets refuses to make sockets: all, or all but those for TCP. Pairs are refused too but for programs that need them.
func sockets(tcp bool) seccomp.SyscallGroup {
	if !tcp {
		return seccomp.SyscallGroup{Names: known([]string{"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"}), Action: refuse}
	}
	with := func(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: conditions}
	}
	notFamily := []seccomp.Condition{
		{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_INET},
		{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_INET6},
	}
	return seccomp.SyscallGroup{
		Names:              known([]string{"socketpair", "bind", "listen", "accept", "accept4"}),
		NamesWithCondtions: append([]seccomp.NameWithConditions{with("socket", notFamily...)}, notStream(with)...),
		Action:             refuse,
	}
}

// notStream refuses sockets whose type, without its flags, is another than a stream's: types are the lowest four bits.
func notStream(with func(string, ...seccomp.Condition) seccomp.NameWithConditions) []seccomp.NameWithConditions {
	return []seccomp.NameWithConditions{
		with("socket", seccomp.Condition{Argument: 1, Operation: seccomp.BitsSet, Value: 2}), // datagram, raw is 3
		with("socket", seccomp.Condition{Argument: 1, Operation: seccomp.BitsSet, Value: 4}), // the rest
	}
}

// files are the calls that reach files by a name, or by what stands for one.
func files() []string {
	return []string{
		"open", "openat", "openat2", "creat", "open_by_handle_at", "name_to_handle_at", "mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "unlink",
		"unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "truncate", "chmod", "fchmodat", "fchmodat2", "chown",
		"lchown", "fchownat", "utime", "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "getxattr", "lgetxattr", "listxattr", "removexattr",
		"chdir", "fchdir", "chroot", "stat", "lstat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "statfs", "inotify_init",
		"inotify_init1", "inotify_add_watch", "fanotify_init", "memfd_create", "memfd_secret",
	}
}

// programs are the calls that start one, or reach another process.
func programs() []string {
	return []string{"execve", "execveat", "fork", "vfork", "pidfd_open", "pidfd_send_signal", "setpgid", "setsid", "prlimit64", "rt_sigqueueinfo"}
}

// never are calls that no program of this kind has a use for, and that kernels have been broken with.
func never() []string {
	return []string{
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup",
		"io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "mount", "umount2", "move_mount", "open_tree", "fsopen", "fsconfig",
		"fsmount", "fspick", "mount_setattr", "pivot_root", "unshare", "setns", "init_module", "finit_module", "delete_module", "kexec_load",
		"kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
		"sethostname", "setdomainname", "iopl", "ioperm", "syslog", "lookup_dcookie", "nfsservctl", "vhangup", "personality", "modify_ldt",
		"open_by_handle_at",
	}
}

// known leaves out the calls that this machine does not have: their numbers belong to nothing.
func known(names []string) []string {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil // there is no filter for such a machine, and loading one says so
	}
	have := info.SyscallNames
	var out []string
	seen := map[string]bool{}
	for _, n := range names {
		if _, ok := have[n]; ok && !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
