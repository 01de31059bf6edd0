//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/guest/kmod"
)

// Sysctl is one value below /proc/sys.
type Sysctl struct{ Name, Value string }

// Sysctls are what the guest is set to. A name that the kernel does not have is left out.
func Sysctls() []Sysctl {
	return []Sysctl{
		{"kernel/kptr_restrict", "2"},
		{"kernel/dmesg_restrict", "1"},
		{"kernel/unprivileged_bpf_disabled", "1"},
		{"kernel/kexec_load_disabled", "1"},
		{"kernel/sysrq", "0"},
		{"kernel/yama/ptrace_scope", "1"},
		{"net/core/bpf_jit_harden", "2"},
		{"fs/protected_fifos", "1"},
		{"fs/protected_regular", "2"},
		{"fs/protected_hardlinks", "1"},
		{"fs/protected_symlinks", "1"},
		{"fs/suid_dumpable", "0"},
		{"fs/inotify/max_user_watches", "524288"},
		{"vm/max_map_count", "262144"},
	}
}

// nofile is how many files a process may have open, and may raise that to.
const nofile, nofileMax = 65536, 1 << 20

// harden sets kernel parameters and limits and, last, locks the loading of modules. Without the lock the guest must not run.
func (b *boot) harden() error {
	for _, s := range Sysctls() {
		err := set("/proc/sys/"+s.Name, s.Value)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			b.timer.Fail("sysctl", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: nofile, Max: nofileMax}); err != nil {
		b.timer.Fail("limits", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: unix.RLIM_INFINITY}); err != nil {
		b.timer.Fail("limits", err)
	}
	// Ctrl-Alt-Del is a signal to us, not a reset.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		b.timer.Fail("ctrl-alt-del", err)
	}
	if err := resolver("/etc/resolv.conf"); err != nil {
		b.timer.Fail("name resolution", err)
	}
	b.lockdown()
	return kmod.Lock() //nolint:wrapcheck // says what it did
}

// set writes a value of the kernel's. It bypasses os, which would first try to poll the file.
func set(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	_, err = unix.Write(fd, []byte(value))
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}

// lockdown keeps root of the guest from the kernel's memory: /dev/mem, ports, kexec, unsigned modules. A kernel without
// that ability is left as it is; what remains is for the guest's own doctor to say.
func (b *boot) lockdown() {
	const dir = "/sys/kernel/security"
	err := mount{"securityfs", dir, "securityfs", inert, ""}.do()
	if err == nil {
		err = set(dir+"/lockdown", "integrity")
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		err = errors.Join(err, unix.Unmount(dir, 0))
	}
	if err != nil {
		b.timer.Fail("lockdown", err)
	}
	for _, node := range []string{"/dev/mem", "/dev/port"} {
		if err := os.Remove(node); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.timer.Fail("lockdown", err)
		}
	}
}

// resolver makes name lookups go to this machine, where the agent hands them to the host.
func resolver(path string) error {
	const ours = "nameserver 127.0.0.1\n"
	if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), ours) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(ours), 0o644); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
