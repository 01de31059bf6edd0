// Package paths is the one place that knows the name of everything capsem keeps on disk (design section 4).
package paths

import (
	"errors"
	"path/filepath"
)

// Home is CAPSEM_HOME: the directory, mode 0700, under which all state of one installation lives.
type Home string

// ErrNoHome is returned when neither CAPSEM_HOME nor HOME is set.
var ErrNoHome = errors.New("neither CAPSEM_HOME nor HOME is set")

// Resolve returns CAPSEM_HOME, else $HOME/.capsem, as an absolute path.
func Resolve(getenv func(string) string) (Home, error) {
	dir := getenv("CAPSEM_HOME")
	if dir == "" {
		if getenv("HOME") == "" {
			return "", ErrNoHome
		}
		dir = filepath.Join(getenv("HOME"), ".capsem")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return Home(abs), nil
}

func (h Home) join(parts ...string) string {
	return filepath.Join(append([]string{string(h)}, parts...)...)
}

// Dir is the home directory itself.
func (h Home) Dir() string { return string(h) }

// Bin holds the installed binary and its links.
func (h Home) Bin() string { return h.join("bin") }

// Assets holds manifest.json and one v<VERSION> directory per built asset set.
func (h Home) Assets() string { return h.join("assets") }

// Manifest is the list of built assets with their hashes.
func (h Home) Manifest() string { return h.join("assets", "manifest.json") }

// AssetVersion is the directory of one asset set.
func (h Home) AssetVersion(version string) string { return h.join("assets", "v"+version) }

// Templates holds empty formatted disks and, later, warm-start templates.
func (h Home) Templates() string { return h.join("templates") }

// Images holds forked images.
func (h Home) Images() string { return h.join("images") }

// UserConfig is the user's settings file.
func (h Home) UserConfig() string { return h.join("user.toml") }

// CorpConfig is the machine owner's settings file; no environment variable overrides it.
func CorpConfig() string { return "/etc/capsem/corp.toml" }

// Budgets is what VMs may spend and have spent; it is never forked or rewound.
func (h Home) Budgets() string { return h.join("budgets") }

// Prices is the owner's own table of what models cost; there may be none.
func (h Home) Prices() string { return h.join("prices.toml") }

// UserPolicy is what the user lets VMs reach; CorpPolicy what the machine's owner says above that.
func (h Home) UserPolicy() string { return h.join("policy.toml") }

// CorpPolicy is the rules of the machine's owner; no environment variable overrides it.
func CorpPolicy() string { return "/etc/capsem/policy.toml" }

// AcceptedPolicy is the presets of providers whose secrets the user has stored; capsem writes it.
func (h Home) AcceptedPolicy() string { return h.join("run", "accepted.toml") }

// Credentials is the user's secrets, sealed.
func (h Home) Credentials() string { return h.join("credentials") }

// CredentialKey is the key they are sealed with where there is no keychain, mode 0600.
func (h Home) CredentialKey() string { return h.join("ca", "credentials.key") }

// MCPPins is what is known of the tools of MCP servers, and which of them the owner has approved.
func (h Home) MCPPins() string { return h.join("mcp_pins.json") }

// MCPWork holds the directories of the MCP servers that a worker runs, while it does.
func (h Home) MCPWork(session string) string { return h.join("run", "mcp", session) }

// Run holds sockets, pids, locks and the state of VMs.
func (h Home) Run() string { return h.join("run") }

// ServiceSocket is the socket of the local API, mode 0600.
func (h Home) ServiceSocket() string { return h.join("run", "service.sock") }

// ServicePID holds the process id of the running service.
func (h Home) ServicePID() string { return h.join("run", "service.pid") }

// ServiceLock is flocked by the running service for as long as it lives.
func (h Home) ServiceLock() string { return h.join("run", "service.lock") }

// ServiceLog is the log of the service.
func (h Home) ServiceLog() string { return h.join("run", "service.log") }

// Registry is the list of named VMs.
func (h Home) Registry() string { return h.join("run", "persistent_registry.json") }

// AcceleratorVerdict remembers whether KVM really boots a guest on this host (design D4).
func (h Home) AcceleratorVerdict() string { return h.join("run", "accelerator.json") }

// Instances holds one socket and one lock per worker.
func (h Home) Instances() string { return h.join("run", "instances") }

// InstanceSocket is where the worker of one VM listens. Clients use the path that the service returns, since a path
// over the limit of sockaddr_un is moved elsewhere.
func (h Home) InstanceSocket(id string) string { return h.join("run", "instances", id+".sock") }

// InstanceLock is flocked by the worker of one VM for as long as it lives, and holds its process id.
func (h Home) InstanceLock(id string) string { return h.join("run", "instances", id+".lock") }

// Session is the directory of an unnamed VM.
func (h Home) Session(id string) VM { return VM(h.join("run", "sessions", id)) }

// Sessions holds the directories of unnamed VMs.
func (h Home) Sessions() string { return h.join("run", "sessions") }

// Persistent is the directory of a named VM.
func (h Home) Persistent(name string) VM { return VM(h.join("run", "persistent", name)) }

// PersistentDir holds the directories of named VMs.
func (h Home) PersistentDir() string { return h.join("run", "persistent") }

// Failed is where the directory of an unnamed VM that died unexpectedly is kept for its logs.
func (h Home) Failed() string { return h.join("run", "failed") }

// Record is the directory of one session's database, which outlives the VM.
func (h Home) Record(id string) string { return h.join("sessions", id) }

// Records holds the directories of all sessions, and the index over them.
func (h Home) Records() string { return h.join("sessions") }

// RecordDB is the database of one session.
func (h Home) RecordDB(id string) string { return h.join("sessions", id, "session.db") }

// RecordExport says how far the record of a session was sent to a target of live exports.
func (h Home) RecordExport(id, target string) string {
	return h.join("sessions", id, "export-"+target+".json")
}

// RecordIndex is the index over all sessions.
func (h Home) RecordIndex() string { return h.join("sessions", "main.db") }

// RecordKey is the key that signs the records of this installation, mode 0600.
func (h Home) RecordKey() string { return h.join("ca", "record.key") }

// The files in CA.
const (
	// CACertFile is the certificate that guests trust, CAKeyFile its key, mode 0600, which no guest ever has.
	CACertFile, CAKeyFile = "ca.pem", "ca.key"
)

// CA holds the installation's certificate authority and the other keys that are its own.
func (h Home) CA() string { return h.join("ca") }

// CACert is the certificate that guests trust.
func (h Home) CACert() string { return h.join("ca", CACertFile) }

// CAKey is the key of that certificate.
func (h Home) CAKey() string { return h.join("ca", CAKeyFile) }

// VM is the directory of one VM, mode 0700. persist renames it while the VM runs, so a worker keeps what it opened.
type VM string

// Dir is the directory itself.
func (v VM) Dir() string { return string(v) }

// Spec is what the service asked the worker to run.
func (v VM) Spec() string { return filepath.Join(string(v), "vm.json") }

// Workspace is the only directory the guest will ever see.
func (v VM) Workspace() string { return filepath.Join(string(v), "workspace") }

// SystemDisk is the qcow2 file under the guest's overlay.
func (v VM) SystemDisk() string { return filepath.Join(string(v), "system.qcow2") }

// Checkpoints is where the states of the VM are kept that it can be rewound to.
func (v VM) Checkpoints() string { return filepath.Join(string(v), "checkpoints") }

// Rewind is what the VM is being rewound to: complete, and on its way to where it belongs.
func (v VM) Rewind() string { return filepath.Join(string(v), "rewind") }

// Status is what the worker last said of the VM, for whoever finds it gone.
func (v VM) Status() string { return filepath.Join(string(v), "status.json") }

// Snapshots is where the copies of the workspace are kept; the guest never sees it.
func (v VM) Snapshots() string { return filepath.Join(string(v), "snapshots") }

// Policy is the VM's own rules, which narrow the user's; there may be none.
func (v VM) Policy() string { return filepath.Join(string(v), "policy.toml") }

// SerialLog is what the guest wrote to its console.
func (v VM) SerialLog() string { return filepath.Join(string(v), "serial.log") }

// ProcessLog is what the worker logged.
func (v VM) ProcessLog() string { return filepath.Join(string(v), "process.log") }
