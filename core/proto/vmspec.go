package proto

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
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
	// Policy are the VM's own rules on their way into its directory, where they are a file that may be edited.
	Policy string `json:"-"`
	// Family is what placeholders of credentials are derived from; a fork has its parent's. A worker that has one is told of credentials
	// before its guest is let at work.
	Family string `json:"family,omitempty"`
	// Secrets are the names of those that it has; nil is all of the owner's, an empty list none.
	Secrets []string `json:"secrets,omitzero"`
	// Mounts are directories of the host that it shares, besides its workspace.
	Mounts []Mount `json:"mounts,omitempty"`
	// Network is how its way out is set up; AskTimeoutMS how long a question to the owner stands, 0 for the default.
	Network      NetworkSpec `json:"network,omitzero"`
	AskTimeoutMS int64       `json:"ask_timeout_ms,omitempty"`
	// Detect says what becomes of what is found in allowed traffic.
	Detect DetectSpec `json:"detect,omitzero"`
	// Snapshots bounds the copies of its workspace.
	Snapshots SnapshotSpec `json:"snapshots,omitzero"`
	// RecordMaxMB is how large its record may become until events of files and programs are only counted; 0 is no bound.
	RecordMaxMB int `json:"record_max_mb,omitempty"`
	// Budget is the family whose budgets it shares: that of the VM it was forked from. Empty is one of its own, see BudgetFamily.
	Budget string `json:"budget,omitempty"`
	// Pooled says that it is ready for somebody, and nobody's yet.
	Pooled bool `json:"pooled,omitempty"`
	// CreatedNS is when the VM was created, since 1970.
	CreatedNS int64 `json:"created_ns"`
}

// NetworkSpec is the owner's settings of the network.
type NetworkSpec struct {
	// DNS are name servers (addresses, or https URLs); none are those of the host.
	DNS []string `json:"dns,omitempty"`
	// Proxy is an upstream HTTP proxy, as a URL; empty is none.
	Proxy string `json:"proxy,omitempty"`
	// CAFiles are further certificates to trust upstream; Bypass are hosts whose TLS is not ended but passed on.
	CAFiles []string `json:"ca_files,omitempty"`
	Bypass  []string `json:"bypass,omitempty"`
	// ClientCerts are certificates to show to hosts that ask, each HOST=FILE or HOST=FILE,KEYFILE.
	ClientCerts []string `json:"client_certs,omitempty"`
}

// DetectSpec is the owner's settings of the detectors: off, report, ask or deny; empty is deny.
type DetectSpec struct {
	Placeholders string `json:"placeholders,omitempty"`
	Secrets      string `json:"secrets,omitempty"`
	OwnSecrets   string `json:"own_secrets,omitempty"`
	Injection    string `json:"injection,omitempty"`
}

// SnapshotSpec bounds the snapshots of a workspace; a zero is the default.
type SnapshotSpec struct {
	// AutoMax and ManualMax are how many are kept of those made automatically and by hand, 1-50.
	AutoMax   int `json:"auto_max,omitempty"`
	ManualMax int `json:"manual_max,omitempty"`
	// IntervalSecs is the time between automatic ones, 30-3600.
	IntervalSecs int `json:"interval_secs,omitempty"`
}

// Session names the record of the VM's life, from its creation to its end: the time, and a part of its machine id.
func (s *VMSpec) Session() string {
	return time.Unix(0, s.CreatedNS).UTC().Format("20060102-150405") + "-" + s.MachineID[:min(8, len(s.MachineID))]
}

// BudgetFamily names whose budgets the VM shares with its forks, and theirs: the session of the first of them.
func (s *VMSpec) BudgetFamily() string {
	if s.Budget != "" {
		return s.Budget
	}
	return s.Session()
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
