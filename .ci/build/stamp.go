package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"capsem/core/buildinfo"
)

// stamp is what the linker writes into core/buildinfo.
type stamp struct {
	version, commit, built string
}

// readStamp asks git for the commit and its time; without a repository both stay unknown. A tag v1.2.3 on the commit is
// the version, else the one in the source stays.
func readStamp(ctx context.Context, root string) (stamp, error) {
	s := stamp{version: buildinfo.Version, commit: "unknown", built: "unknown"}
	when := os.Getenv("SOURCE_DATE_EPOCH")
	if commit, err := output(ctx, root, "git", "rev-parse", "--short=12", "HEAD"); err == nil {
		s.commit = commit
		if tag, err := output(ctx, root, "git", "describe", "--tags", "--exact-match", "--match", "v[0-9]*"); err == nil {
			s.version = strings.TrimPrefix(tag, "v")
		}
		if changed, err := output(ctx, root, "git", "status", "--porcelain", "--untracked-files=no"); err != nil || changed != "" {
			s.commit += "-dirty"
		}
		if when == "" {
			when, err = output(ctx, root, "git", "show", "-s", "--format=%ct", "HEAD")
			if err != nil {
				return stamp{}, err
			}
		}
	}
	if when == "" {
		return s, nil
	}
	seconds, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return stamp{}, fmt.Errorf("read SOURCE_DATE_EPOCH: %w", err)
	}
	s.built = time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	return s, nil
}

// ldflags sets the variables of core/buildinfo.
func (s stamp) ldflags() string {
	const pkg = "capsem/core/buildinfo."
	return fmt.Sprintf("-X %sVersion=%s -X %sCommit=%s -X %sBuildTime=%s", pkg, s.version, pkg, s.commit, pkg, s.built)
}
