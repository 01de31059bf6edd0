package proto

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
)

// Limits of the handshake (reference/capsem-guest.md 1.3).
const (
	// MaxBootFiles and MaxBootFileBytes bound FileWrite, in count and in total.
	MaxBootFiles     = 64
	MaxBootFileBytes = 10 << 20
	// MaxCA bounds the certificate of the install's authority, in bytes.
	MaxCA = 16 << 10
	// MaxBootStages bounds BootTiming; MaxStageUS one stage.
	MaxBootStages = 32
	MaxStageUS    = 600_000_000
)

func (b BootConfig) validate() error {
	if id, err := hex.DecodeString(b.MachineID); err != nil || len(id) != 16 {
		return errors.New("machine id is not 32 hex digits")
	}
	switch {
	case len(b.ID) > 64 || len(b.Name) > 64:
		return errors.New("id or name is longer than 64 bytes")
	case !isText(b.ID) || !isText(b.Name):
		return errors.New("id or name is not UTF-8 text, or contains NUL")
	case !isHostName(b.Hostname):
		return fmt.Errorf("host name %.70q is not a label", b.Hostname)
	case b.Timezone != "" && !isZoneName(b.Timezone):
		return fmt.Errorf("time zone %.70q is malformed", b.Timezone)
	case b.EpochNS <= 0:
		return errors.New("clock is not set")
	case len(b.Entropy) < 32 || len(b.Entropy) > 512:
		return fmt.Errorf("%d bytes of entropy are outside 32-512", len(b.Entropy))
	case len(b.CA) > MaxCA:
		return fmt.Errorf("%d bytes of a certificate are more than %d", len(b.CA), MaxCA)
	}
	return errors.Join(ValidateEnv(b.Env), validateShares(b.Shares))
}

// MaxShares bounds the directories that one guest mounts.
const MaxShares = 32

func validateShares(shares []Share) error {
	if len(shares) > MaxShares {
		return fmt.Errorf("%d shared directories are more than %d", len(shares), MaxShares)
	}
	seen := map[string]bool{}
	for _, s := range shares {
		switch {
		case !IsShareTag(s.Tag) || seen[s.Tag]:
			return fmt.Errorf("tag %.40q of a shared directory is malformed or there twice", s.Tag)
		case !isText(s.Dir) || !path.IsAbs(s.Dir) || path.Clean(s.Dir) != s.Dir || s.Dir == "/" || len(s.Dir) > MaxPath:
			return fmt.Errorf("mount point %.80q is not absolute and clean", s.Dir)
		}
		seen[s.Tag] = true
	}
	return nil
}

// IsShareTag reports whether a text can name a shared directory: 1-32 lower-case letters, digits and hyphens.
func IsShareTag(tag string) bool {
	for _, c := range []byte(tag) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return tag != "" && len(tag) <= 32
}

func (f FileWrite) validate() error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || len(f.Path) > MaxPath {
		return fmt.Errorf("path %.80q is not absolute and clean", f.Path)
	}
	if !isText(f.Path) {
		return fmt.Errorf("path %.80q is not UTF-8 text, or contains NUL", f.Path)
	}
	if f.Mode&^0o777 != 0 {
		return fmt.Errorf("mode %o has more than permission bits", f.Mode)
	}
	return nil
}

func (p Ping) validate() error {
	if p.EpochNS <= 0 {
		return errors.New("clock is not set")
	}
	return nil
}

func (s Shutdown) validate() error {
	if s.GraceMS > 60_000 {
		return fmt.Errorf("grace of %d ms is over 60 s", s.GraceMS)
	}
	return nil
}

func (r Ready) validate() error {
	if len(r.Agent) > 64 || len(r.BootID) > 64 || !printable(r.Agent) || !printable(r.BootID) {
		return errors.New("version or boot id is too long or not plain text")
	}
	return nil
}

func (b BootReady) validate() error {
	if len(b.Failed) > MaxBootStages {
		return fmt.Errorf("more than %d failed steps", MaxBootStages)
	}
	for _, f := range b.Failed {
		if len(f) > 200 || !printable(f) {
			return errors.New("a failed step is too long or not plain text")
		}
	}
	return nil
}

func (b BootTiming) validate() error {
	if len(b.Stages) > MaxBootStages {
		return fmt.Errorf("more than %d stages", MaxBootStages)
	}
	for _, s := range b.Stages {
		if !isStageName(s.Name) || s.DurationUS < 0 || s.DurationUS > MaxStageUS {
			return fmt.Errorf("stage %.70q is malformed", s.Name)
		}
	}
	return nil
}
