//go:build linux

// Package identity makes a booted guest into one particular VM: clock, entropy, host name, machine id, time zone and the
// files the host sends.
package identity

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"capsem/core/proto"
)

// maxDrift is how far the clock may be off before it is set again.
const maxDrift = time.Second

// Kernel is what only root of a guest can do; tests give their own.
type Kernel interface {
	// Now reads the clock, SetClock sets it.
	Now() time.Time
	SetClock(t time.Time) error
	// Credit adds a seed to the kernel's entropy pool, counts it as so many bits and has the generator use it.
	Credit(seed []byte, bits int) error
	// SetHostname sets the host name.
	SetHostname(name string) error
	// NewBootID gives this boot an id of its own.
	NewBootID() error
}

// Setter applies what the host says.
type Setter struct {
	// Kernel does the system calls.
	Kernel Kernel
	// Root is put before every path; empty in a guest.
	Root string

	files, bytes int
}

// Apply makes this guest the VM of a configuration. An error means that no command may run: two clones of one template would
// make the same keys. What went wrong without that danger is returned as failed.
func (s *Setter) Apply(cfg proto.BootConfig) (failed []string, err error) {
	s.files, s.bytes = 0, 0
	if err := s.seed(cfg); err != nil {
		return nil, err
	}
	if err := s.Kernel.SetClock(time.Unix(0, cfg.EpochNS)); err != nil {
		return nil, fmt.Errorf("set clock: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func(proto.BootConfig) error
	}{
		{"host name", s.hostname}, {"machine id", s.machineID}, {"time zone", s.timezone},
	} {
		if err := step.do(cfg); err != nil {
			failed = append(failed, step.name+": "+err.Error())
		}
	}
	return failed, nil
}

// seed mixes the host's entropy with what makes this VM different and credits the result.
func (s *Setter) seed(cfg proto.BootConfig) error {
	h := sha512.New()
	for _, part := range [][]byte{[]byte("capsem guest seed 1"), cfg.Entropy, []byte(cfg.MachineID), []byte(cfg.ID)} {
		_, _ = h.Write(part) // a hash takes everything
	}
	if err := s.Kernel.Credit(h.Sum(nil), 8*min(len(cfg.Entropy), sha512.Size)); err != nil {
		return fmt.Errorf("credit entropy: %w", err)
	}
	return nil
}

// Drift sets the clock again when it is off by more than a second, as after the host slept.
func (s *Setter) Drift(epochNS int64) error {
	want := time.Unix(0, epochNS)
	if d := s.Kernel.Now().Sub(want).Abs(); d <= maxDrift {
		return nil
	}
	if err := s.Kernel.SetClock(want); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

func (s *Setter) hostname(cfg proto.BootConfig) error {
	if err := s.Kernel.SetHostname(cfg.Hostname); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := s.replace("/etc/hostname", []byte(cfg.Hostname+"\n"), 0o644); err != nil {
		return err
	}
	old, err := os.ReadFile(s.Root + "/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read hosts: %w", err)
	}
	return s.replace("/etc/hosts", hosts(old, cfg.Hostname), 0o644)
}

// hosts makes a host name resolve, keeping what else is there.
func hosts(old []byte, name string) []byte {
	const local, own = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", "127.0.1.1"
	var out bytes.Buffer
	if !bytes.Contains(old, []byte("localhost")) {
		out.WriteString(local)
	}
	for line := range strings.Lines(string(old)) {
		if !strings.HasPrefix(line, own) {
			out.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	fmt.Fprintf(&out, "%s\t%s\n", own, name)
	return out.Bytes()
}

func (s *Setter) machineID(cfg proto.BootConfig) error {
	const path = "/etc/machine-id"
	id := strings.ToLower(cfg.MachineID)
	old, err := os.ReadFile(s.Root + path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read machine id: %w", err)
	}
	if was := strings.TrimSpace(string(old)); len(was) == len(id) && was != id {
		// This guest was another machine's a moment ago: it goes on from a template.
		if err := s.Kernel.NewBootID(); err != nil {
			return err //nolint:wrapcheck // says what it did
		}
	}
	return s.replace(path, []byte(id+"\n"), 0o444)
}

func (s *Setter) timezone(cfg proto.BootConfig) error {
	zone := cfg.Timezone
	if zone == "" {
		zone = "UTC"
	}
	const link, zones = "/etc/localtime", "/usr/share/zoneinfo/"
	if target, err := os.Readlink(s.Root + link); err == nil && target == zones+zone {
		return nil
	}
	_, err := os.Stat(s.Root + zones + zone)
	switch {
	case err == nil:
	case zone == "UTC": // what is without any file
		return nil
	default:
		return fmt.Errorf("%s is not in this image, using UTC", zone)
	}
	temp := s.Root + link + ".capsem"
	_ = os.Remove(temp) // most often it is not there
	if err := os.Symlink(zones+zone, temp); err != nil {
		return fmt.Errorf("link time zone: %w", err)
	}
	if err := os.Rename(temp, s.Root+link); err != nil {
		return fmt.Errorf("link time zone: %w", err)
	}
	return nil
}

// Place writes one file of the host's, within proto.MaxBootFiles and proto.MaxBootFileBytes for each configuration.
func (s *Setter) Place(f proto.FileWrite) error {
	s.files++
	s.bytes += len(f.Data)
	if s.files > proto.MaxBootFiles || s.bytes > proto.MaxBootFileBytes {
		return fmt.Errorf("more than %d files or %d bytes in all", proto.MaxBootFiles, proto.MaxBootFileBytes)
	}
	if err := os.MkdirAll(filepath.Dir(s.Root+f.Path), 0o755); err != nil {
		return fmt.Errorf("place file: %w", err)
	}
	return s.replace(f.Path, f.Data, fs.FileMode(f.Mode))
}

// replace gives a file a new content unless it has it already.
func (s *Setter) replace(name string, data []byte, mode fs.FileMode) error {
	name = s.Root + name
	if info, err := os.Lstat(name); err == nil && info.Mode() == mode && info.Size() == int64(len(data)) {
		if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) {
			return nil
		}
	}
	temp := name + ".capsem"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Chmod(temp, mode); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Rename(temp, name); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
