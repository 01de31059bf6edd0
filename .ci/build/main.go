// Command build makes the release files of this tree: the guest agent for each architecture, compressed where the assets
// package embeds it, then one static Linux binary in dist/bin with a hard link for each further name.
//
// The same commit gives the same bytes in any directory: paths are trimmed, and the build time is SOURCE_DATE_EPOCH, else
// the time of the commit. Go's build id stays in the files (it is a hash of the inputs): with it go build knows that
// an output is current and leaves it alone, so a build with nothing changed takes a second or two.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
)

// linkNames are the names, besides capsem, under which the binary is installed. A test holds them to personalities.Table.
var linkNames = []string{"capsem-service", "capsem-process", "capsem-mcp", "capsem-mcp-aggregator", "capsem-mcp-builtin"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := output(ctx, ".", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if err := agent(ctx, root, arch); err != nil {
			return err
		}
	}
	return host(ctx, root)
}

// agent compiles the guest agent for one architecture and packs it if it changed.
func agent(ctx context.Context, root, arch string) error {
	raw := filepath.Join(root, "dist", "bin", "guest", "agent-"+arch)
	err := goBuild(ctx, root, target{arch: arch, out: raw, ldflags: "-s -w", pkg: "./guestagent"})
	if err != nil {
		return err
	}
	if err := checkStatic(raw); err != nil {
		return err
	}
	return pack(raw, filepath.Join(root, "assets", "guestbin", "agent-"+arch+".zst"))
}

// host compiles capsem for the machine it is built on and links its other names to it.
func host(ctx context.Context, root string) error {
	stamp, err := readStamp(ctx, root)
	if err != nil {
		return err
	}
	out := filepath.Join(root, "dist", "bin", "capsem")
	// SQLite is C: it is linked in statically, without what would load further libraries.
	err = goBuild(ctx, root, target{
		arch: runtime.GOARCH, out: out, tags: "netgo,osusergo,sqlite_omit_load_extension", cgo: true,
		ldflags: "-s -w -linkmode external -extldflags -static " + stamp.ldflags(), pkg: ".",
	})
	if err != nil {
		return err
	}
	if err := checkStatic(out); err != nil {
		return err
	}
	for _, name := range linkNames {
		if err := hardLink(out, filepath.Join(filepath.Dir(out), name)); err != nil {
			return err
		}
	}
	return report(out, stamp)
}

// target is one go build. The platform is always linux: the macOS binary needs a Mac (cgo) and its own signing.
type target struct {
	arch, out, tags, ldflags, pkg string
	cgo                           bool
}

func goBuild(ctx context.Context, root string, t target) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", t.tags, "-ldflags", t.ldflags, "-o", t.out, t.pkg}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+t.arch, "CGO_ENABLED=0", "GOFLAGS=")
	if t.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compile %s for linux/%s: %w", t.pkg, t.arch, err)
	}
	return nil
}

// hardLink makes name the same file as target, replacing what was there in one step.
func hardLink(target, name string) error {
	want, err := os.Stat(target)
	if err != nil {
		return fmt.Errorf("link %s: %w", filepath.Base(name), err)
	}
	if have, err := os.Stat(name); err == nil && os.SameFile(want, have) {
		return nil
	}
	tmp := name + ".new"
	if err := os.Remove(tmp); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("link %s: %w", filepath.Base(name), err)
	}
	if err := os.Link(target, tmp); err != nil {
		return fmt.Errorf("link %s: %w", filepath.Base(name), err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("link %s: %w", filepath.Base(name), err)
	}
	return nil
}

func report(path string, s stamp) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("stat the result: %w", err)
	}
	_, err = fmt.Fprintf(os.Stdout, "dist/bin/capsem: %.1f MB, static, %s %s\n", float64(info.Size())/1e6, s.version, s.commit)
	if err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// output runs a command and returns its trimmed standard output.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
