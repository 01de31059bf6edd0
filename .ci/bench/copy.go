package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"capsem/core/image"
)

const (
	// copyRounds is how often a workspace is copied; it has copyFiles files of copySize bytes.
	copyRounds, copyFiles, copySize = 5, 100, 2 << 20
)

// copyWorkspace times the copy of a workspace, as a fork makes it, on this file system and on one that shares blocks.
func (b *bench) copyWorkspace(ctx context.Context) error {
	plain, plainMB, err := timeCopies(b.tmp)
	if err != nil {
		return err
	}
	disk, on := filepath.Join(b.tmp, "xfs"), filepath.Join(b.tmp, "xfs.on")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	if err := os.Truncate(disk, 2<<30); err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	if err := os.Mkdir(on, 0o700); err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	for _, argv := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", disk}, {"mount", "-o", "loop", disk, on}} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("an XFS to compare with: %v: %w: %s", argv, err, out)
		}
	}
	shared, sharedMB, err := timeCopies(on)
	if out, failed := exec.CommandContext(context.WithoutCancel(ctx), "umount", on).CombinedOutput(); err == nil && failed != nil {
		err = fmt.Errorf("unmount: %w: %s", failed, out)
	}
	if err != nil {
		return err
	}
	const baseline = "the same on the file system of the temporary directory"
	b.add(newRow("copy of a workspace of 200 MB on XFS", "ms", shared).against(baseline, plain),
		newRow("copy of a workspace of 200 MB on XFS: taken of the disk", "MB", sharedMB).against(baseline, plainMB))
	return nil
}

// timeCopies copies a workspace in a directory and returns how long that takes and what it takes of the disk.
func timeCopies(dir string) (took, megabytes []float64, err error) {
	from := filepath.Join(dir, "vm")
	if err := os.MkdirAll(filepath.Join(from, "workspace"), 0o700); err != nil {
		return nil, nil, fmt.Errorf("fill workspace: %w", err)
	}
	text := make([]byte, copySize)
	for i := range copyFiles {
		_, _ = rand.Read(text) // never fails
		if err := os.WriteFile(filepath.Join(from, "workspace", fmt.Sprint("file", i)), text, 0o600); err != nil {
			return nil, nil, fmt.Errorf("fill workspace: %w", err)
		}
	}
	for range copyRounds {
		before, err := freeMB(dir)
		if err != nil {
			return nil, nil, err
		}
		to, began := filepath.Join(dir, "copy"), time.Now()
		err = os.Mkdir(to, 0o700)
		if err == nil {
			err = image.CopyWorkspace(from, to)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("copy workspace: %w", err)
		}
		took = append(took, millis(time.Since(began)))
		after, err := freeMB(dir)
		if err != nil {
			return nil, nil, err
		}
		megabytes = append(megabytes, before-after)
		if err := os.RemoveAll(to); err != nil {
			return nil, nil, fmt.Errorf("remove copy: %w", err)
		}
	}
	if err := os.RemoveAll(from); err != nil {
		return nil, nil, fmt.Errorf("remove workspace: %w", err)
	}
	return took, megabytes, nil
}
