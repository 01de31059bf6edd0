package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/proto"
)

const (
	// maxRegistry bounds the registry file: named VMs number in the tens, and their environments are bounded.
	maxRegistry = 64 << 20
	// maxStateFile bounds vm.json and status.json.
	maxStateFile = 20 << 20
)

// Entry is one named VM in persistent_registry.json. It repeats what vm.json in the VM's directory says, so that either
// file can be made again from the other.
type Entry struct {
	// Name is the VM's name and id.
	Name string `json:"name"`
	// RAMMB, CPUs and DiskMB are its sizes.
	RAMMB  int `json:"ram_mb"`
	CPUs   int `json:"cpus"`
	DiskMB int `json:"disk_mb"`
	// BaseVersion is the asset version it boots.
	BaseVersion string `json:"base_version"`
	// CreatedAt is when it was created.
	CreatedAt time.Time `json:"created_at"`
	// MachineID is the guest's /etc/machine-id.
	MachineID string `json:"machine_id,omitempty"`
	// Env is set in every command.
	Env map[string]string `json:"env,omitempty"`
	// Mounts are the directories of the host that it shares.
	Mounts []proto.Mount `json:"mounts,omitempty"`
	// Family is what its placeholders of credentials are derived from.
	Family string `json:"family,omitempty"`
	// Secrets are the names of those that it has; nil is all.
	Secrets []string `json:"secrets,omitzero"`
	// Budget is whose budgets it shares, if it was forked.
	Budget string `json:"budget,omitempty"`
	// UID is what its hypervisor runs as when the service is root; 0 otherwise.
	UID uint32 `json:"uid,omitempty"`
}

// registryFile is the shape of persistent_registry.json.
type registryFile struct {
	VMs map[string]Entry `json:"vms"`
}

func entryOf(s proto.VMSpec) Entry {
	return Entry{
		Name: s.Name, RAMMB: s.MemoryMB, CPUs: s.CPUs, DiskMB: s.DiskMB, BaseVersion: s.AssetVersion,
		CreatedAt: time.Unix(0, s.CreatedNS).UTC(), MachineID: s.MachineID, Env: s.Env, UID: s.UID, Mounts: s.Mounts, Family: s.Family, Secrets: s.Secrets, Budget: s.Budget,
	}
}

func (e Entry) spec() proto.VMSpec {
	return proto.VMSpec{
		ID: e.Name, Name: e.Name, CPUs: e.CPUs, MemoryMB: e.RAMMB, DiskMB: e.DiskMB, Env: e.Env, AssetVersion: e.BaseVersion,
		MachineID: e.MachineID, CreatedNS: e.CreatedAt.UnixNano(), UID: e.UID, GID: e.UID, Mounts: e.Mounts, Family: e.Family, Secrets: e.Secrets, Budget: e.Budget,
	}
}

// decodeRegistry parses the registry strictly: an unknown field, a second value, a bad name or size is an error.
func decodeRegistry(data []byte) (map[string]Entry, error) {
	var f registryFile
	if err := strictJSON(data, &f); err != nil {
		return nil, err
	}
	if f.VMs == nil {
		return nil, errors.New(`it has no "vms"`)
	}
	for name, e := range f.VMs {
		if e.Name != name {
			return nil, fmt.Errorf("entry %.80q is for %.80q", name, e.Name)
		}
		spec := e.spec()
		if err := checkSpec(&spec); err != nil {
			return nil, fmt.Errorf("entry %.80q: %w", name, err)
		}
	}
	return f.VMs, nil
}

func encodeRegistry(vms map[string]Entry) ([]byte, error) {
	data, err := json.MarshalIndent(registryFile{VMs: vms}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode registry: %w", err)
	}
	return append(data, '\n'), nil
}

// strictJSON decodes exactly one JSON value without unknown fields.
func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode: something follows the value")
	}
	return nil
}

// checkSpec holds what was read from disk to the limits of what may be created.
func checkSpec(s *proto.VMSpec) error {
	if err := api.CheckName(s.ID); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if s.Name != "" && s.Name != s.ID {
		return fmt.Errorf("name %.80q differs from id %.80q", s.Name, s.ID)
	}
	if s.CPUs == 0 || s.MemoryMB == 0 || s.DiskMB == 0 {
		return errors.New("a size is missing")
	}
	if err := api.CheckSizes(s.CPUs, s.MemoryMB, s.DiskMB); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if s.UID != 0 && s.UID < firstUID || s.GID != s.UID {
		return fmt.Errorf("user %d, group %d is not one that hypervisors run as", s.UID, s.GID)
	}
	if err := proto.ValidateEnv(s.Env); err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	return nil
}

// readBounded reads a whole file, refusing one over limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // names the file and the operation itself
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: over %d bytes", path, limit)
	}
	return data, nil
}

// moveAside renames a file that does not parse, so that it is neither lost nor read again, and returns its new name.
func moveAside(path string, now time.Time) (string, error) {
	aside := path + ".corrupt-" + now.UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move a corrupt file aside: %w", err)
	}
	return aside, nil
}

// writeSpec writes vm.json.
func writeSpec(path string, s proto.VMSpec) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode VM spec: %w", err)
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600) //nolint:wrapcheck // says what and where
}

// readSpec reads and checks vm.json. An unknown field is allowed: a newer version may have written it.
func readSpec(path string) (proto.VMSpec, error) {
	var s proto.VMSpec
	data, err := readBounded(path, maxStateFile)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fault.Wrap(err, fault.Internal, "%s does not parse", path)
	}
	if err := checkSpec(&s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// readStatus reads what a worker last wrote of itself. Anything unreadable counts as nothing known.
func readStatus(path string) (proto.WorkerStatus, bool) {
	var st proto.WorkerStatus
	data, err := readBounded(path, maxStateFile)
	if err != nil || json.Unmarshal(data, &st) != nil {
		return proto.WorkerStatus{}, false
	}
	return st, true
}
