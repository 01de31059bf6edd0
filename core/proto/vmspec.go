package proto

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// VMSpec is what the service asks a worker to run: the file vm.json in the VM's directory, mode 0600.
type VMSpec struct {
	// ID addresses the VM on the API; for a named VM it is the name. Name is empty for an unnamed one.
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// FormerID is the id before persist: the worker of a persist that was cut short still answers under it.
	FormerID string `json:"former_id,omitempty"`
	// CPUs is 1-8, MemoryMB 256-16384, DiskMB the size of the system overlay.
	CPUs     int `json:"cpus"`
	MemoryMB int `json:"memory_mb"`
	DiskMB   int `json:"disk_mb"`
	// Env is the environment of every command in the VM.
	Env map[string]string `json:"env,omitempty"`
	// AssetVersion names the kernel, initrd and rootfs under assets/v<VERSION>.
	AssetVersion string `json:"asset_version"`
	// Accelerator is auto, kvm or tcg.
	Accelerator string `json:"accelerator"`
	// MachineID is the VM's own /etc/machine-id.
	MachineID string `json:"machine_id"`
	// Timezone is the host's IANA zone; may be empty.
	Timezone string `json:"timezone,omitempty"`
	// ReadyTimeoutMS is how long the guest may take to answer.
	ReadyTimeoutMS int64 `json:"ready_timeout_ms"`
	// UID and GID are who QEMU runs as when the worker is root; 0 means not to change.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `json:"log_level,omitempty"`
	// Image is what it was made of; empty for a VM of its own. ForkedMemory says that the memory of the image is an extra: one that
	// does not fit is given up.
	Image        string `json:"image,omitempty"`
	ForkedMemory bool   `json:"forked_memory,omitempty"`
	// Cold says that no template is to be used for the first start.
	Cold bool `json:"cold,omitempty"`
	// Mounts are directories of the host that it shares, besides its workspace.
	Mounts []Mount `json:"mounts,omitempty"`
	// Pooled says that it is ready for somebody, and nobody's yet.
	Pooled bool `json:"pooled,omitempty"`
	// CreatedNS is when the VM was created, since 1970.
	CreatedNS int64 `json:"created_ns"`
}

// Mount is a directory of the host that a VM shares.
type Mount struct {
	// Host is an absolute path on the host, Guest one in the guest.
	Host  string `json:"host"`
	Guest string `json:"guest"`
	// ReadOnly is held on the host.
	ReadOnly bool `json:"read_only,omitempty"`
}

// ValidateMount checks both paths: absolute, clean, and in the guest in no place that a guest cannot do without.
func ValidateMount(m Mount) error {
	for _, p := range []string{m.Host, m.Guest} {
		if !path.IsAbs(p) || path.Clean(p) != p || len(p) > MaxPath || strings.ContainsRune(p, 0) {
			return fmt.Errorf("path %.200q of a directory to share is not absolute and clean", p)
		}
	}
	if !isText(m.Guest) {
		return errors.New("the place of a shared directory in the guest is not UTF-8 text")
	}
	for _, taken := range []string{"/", "/root", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/var", "/tmp"} {
		if m.Guest == taken {
			return fmt.Errorf("a shared directory cannot be at %s in the guest", taken)
		}
	}
	for _, tree := range []string{"/proc", "/sys", "/dev", "/run", "/boot"} {
		if m.Guest == tree || strings.HasPrefix(m.Guest, tree+"/") {
			return fmt.Errorf("a shared directory cannot be in %s in the guest", tree)
		}
	}
	return nil
}
