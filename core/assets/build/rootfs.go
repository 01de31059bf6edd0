package build

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// packer makes a root file system of a tar archive on its standard input.
type packer struct {
	tool string
	args func(out string) []string
}

// packers are the kinds of root file systems. Times come from SOURCE_DATE_EPOCH. Sizes of the minimal image (226 MB of tar), in
// MB: squashfs with zstd 9 in blocks of 128K 72.0 (256K: 69.3; zstd 15: 67.3, but six times as long to make), EROFS with lz4hc in
// clusters of 4K 125.3. In the guest (TCG, medians): cold "capsem run true" 3.34 s with squashfs, 3.35 s with EROFS; python3
// with json, ssl and asyncio, caches dropped, 3.2 s and 3.07 s. So squashfs, for its size. EROFS needs erofs-utils 1.7 or later,
// for --tar.
var packers = map[string]packer{
	"squashfs": {"mksquashfs", func(out string) []string {
		return []string{"-", out, "-tar", "-noappend", "-quiet", "-no-progress", "-no-xattrs", "-comp", "zstd", "-Xcompression-level", "9", "-b", "128K"}
	}},
	"erofs": {"mkfs.erofs", func(out string) []string {
		return []string{"--quiet", "--tar=f", "-zlz4hc", "-T0", "-U00000000-0000-0000-0000-000000000000", out, "/dev/stdin"}
	}},
}

// rootfs builds the root file system in one pass, and downloads the kernel's package on the way. It returns what was
// installed; the kernel's place in it is still empty.
func (j *job) rootfs(ctx context.Context) (*Lock, error) {
	args, err := j.mmdebstrapArgs()
	if err != nil {
		return nil, err
	}
	from, err := tool(ctx, "mmdebstrap", args...)
	if err != nil {
		return nil, err
	}
	p := packers[j.RootFS]
	to, err := tool(ctx, p.tool, p.args(filepath.Join(j.dir, "rootfs."+j.RootFS))...)
	if err != nil {
		return nil, err
	}
	var f *filter
	err = pipeline(ctx, from, to, j.bootstrapLine, func(w io.Writer, r io.Reader) error {
		if f, err = newFilter(w, j.recipe); err != nil {
			return err
		}
		f.progress = func(n int) { j.say("packing", fmt.Sprintf("%d files", n)) }
		return f.run(r)
	})
	if err != nil {
		return nil, err
	}
	now := &Lock{Packages: f.packages()}
	if j.lock != nil && len(j.lock.NPM) > 0 {
		now.NPM = j.lock.NPM // npm ci installs that or nothing
		return now, nil
	}
	if j.recipe.NPM.Prefix != "" {
		text, err := os.ReadFile(filepath.Join(j.scratch, "npm", "package-lock.json"))
		if err != nil {
			return nil, fmt.Errorf("read npm's lock: %w", err)
		}
		now.NPM = json.RawMessage(text)
	}
	return now, nil
}

// bootstrapLine makes progress of what mmdebstrap prints.
func (j *job) bootstrapLine(line string) {
	switch {
	case strings.Contains(line, "-hook in shell"): // the hooks say themselves what they do
	case strings.HasPrefix(line, "I: "):
		j.say("system", strings.TrimSuffix(strings.TrimPrefix(line, "I: "), "..."))
	case strings.HasPrefix(line, "capsem: "):
		j.say("system", strings.TrimPrefix(line, "capsem: "))
	}
}

func (j *job) mmdebstrapArgs() ([]string, error) {
	args := []string{
		"--variant=minbase", "--format=tar", "--architectures=" + j.Arch, "--include=" + strings.Join(j.recipe.Packages, ","),
		"--skip=cleanup/apt/lists",
	}
	if j.lock != nil {
		pins := filepath.Join(j.scratch, "capsem")
		if err := os.WriteFile(pins, []byte(j.lock.preferences()), 0o644); err != nil {
			return nil, fmt.Errorf("write package pins: %w", err)
		}
		args = append(args, "--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\" && cp "+pins+" \"$1/etc/apt/preferences.d/capsem\"")
	}
	hooks := []string{j.kernelHook()}
	for _, u := range j.recipe.Users {
		hooks = append(hooks, fmt.Sprintf("chroot \"$1\" useradd --create-home --uid %d --shell %s %s", u.UID, u.Shell, u.Name))
	}
	if j.recipe.NPM.Prefix != "" {
		hook, err := j.npmHook()
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, hook)
	}
	for _, h := range hooks {
		args = append(args, "--customize-hook="+h)
	}
	return append(append(args, suite, "-"), j.mirrors.lines()...), nil
}
