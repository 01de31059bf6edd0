package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	embedded "capsem/assets"
	"capsem/core/assets/initrd"
	"capsem/core/paths"
)

// stagingPrefix begins the names of directories in which sets are made.
const stagingPrefix = ".new-"

// Staging makes a directory for a new set beneath Assets, and removes those of builds that died. The caller holds the Lock.
func Staging(home paths.Home) (string, error) {
	old, err := os.ReadDir(home.Assets())
	if err != nil {
		return "", fmt.Errorf("make image directory: %w", err)
	}
	for _, e := range old {
		if strings.HasPrefix(e.Name(), stagingPrefix) {
			if err := os.RemoveAll(filepath.Join(home.Assets(), e.Name())); err != nil {
				return "", fmt.Errorf("remove what a dead build left: %w", err)
			}
		}
	}
	dir, err := os.MkdirTemp(home.Assets(), stagingPrefix)
	if err != nil {
		return "", fmt.Errorf("make image directory: %w", err)
	}
	return dir, nil
}

// Refresh makes a new current set when the guest agent of this binary is not the one in its initrd: only the initrd is made
// anew, kernel and root file system stay the same files.
func Refresh(ctx context.Context, home paths.Home, arch string, log *slog.Logger) (changed bool, err error) {
	agent, err := embedded.GuestAgent(arch)
	if err != nil {
		return false, err //nolint:wrapcheck // a fault
	}
	if s, err := Current(home, arch); err != nil || s.Agent == Hash(agent) {
		return false, err
	}
	defer func() { err = Explain(home, err) }()
	lock, err := Lock(ctx, home, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	s, err := Current(home, arch) // it may have been done meanwhile
	if err != nil || s.Agent == Hash(agent) {
		return false, err
	}
	dir, err := Staging(home)
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := s.repack(ctx, dir, agent); err != nil {
		return false, err
	}
	e := s.Entry
	e.Agent, e.Files = Hash(agent), nil
	fresh, err := Publish(home, dir, e)
	if err != nil {
		return false, err
	}
	log.Info("the guest agent in the image was replaced", "from", s.Version, "to", fresh.Version)
	return true, nil
}

// repack fills dir with the set's files, the agent in the initrd replaced. What it starts from is checked first.
func (s *Set) repack(ctx context.Context, dir string, agent []byte) error {
	o, err := s.Open(ctx)
	if err != nil {
		return err
	}
	defer o.Close()
	for _, name := range []string{Kernel, rootPrefix + s.RootFS} {
		if err := os.Link(filepath.Join(s.Dir(), name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("repack image: %w", err)
		}
	}
	out, err := os.OpenFile(filepath.Join(dir, Initrd), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("repack image: %w", err)
	}
	modules, err := initrd.Read(io.LimitReader(o.Initrd, initrd.MaxSize))
	if err == nil {
		err = initrd.Build(out, initrd.Input{Agent: agent, Modules: modules})
	}
	return errors.Join(err, out.Close())
}
