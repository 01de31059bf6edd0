package cli

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/assets"
	"capsem/core/assets/build"
	"capsem/core/fault"
)

func (s *session) assetsCommand() *cli.Command {
	return &cli.Command{
		Name: "assets", Category: groupService, Usage: "guest images", UsageText: "assets build|status|verify",
		Description: "Guest images are made here, from recipes, and checked before each boot.",
		Subcommands: []*cli.Command{
			{
				Name: "build", Usage: "make the guest image", UsageText: "assets build [--profile dev|minimal] [--arch amd64|arm64] [--locked]",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "profile", Value: "dev", Usage: "what is in the image: `PROFILE` is dev (the default) or minimal"},
					&cli.StringFlag{Name: "arch", Value: runtime.GOARCH, Usage: "for machines of `ARCH`: amd64 or arm64 (default: this machine's)"},
					&cli.StringFlag{Name: "rootfs", Hidden: true, Usage: "squashfs or erofs"},
					&cli.StringFlag{Name: "mirror", Usage: "take Debian's packages from `URL` (else CAPSEM_DEBIAN_MIRROR, else where this machine's apt does)"},
					&cli.BoolFlag{Name: "locked", Usage: "refuse anything but the locked versions"},
					&cli.BoolFlag{Name: "no-template", Usage: "do not make the template that new VMs start from"},
					&cli.BoolFlag{Name: "update-lock", Usage: "move the lock to the current versions"}, jsonFlag(),
				},
				Description: "Makes a Debian 13 image by a recipe, and makes it the one that new VMs boot. dev has what agents need; minimal is small.",
				Action:      action(s.assetsBuild),
			},
			{
				Name: "status", Usage: "which images there are", UsageText: "assets status [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "Lists the images; the ones that new VMs boot are marked. Exits with 1 when none can be booted.", Action: action(s.assetsStatus),
			},
			{
				Name: "verify", Usage: "check every file", UsageText: "assets verify [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "Reads every file of every image and holds it to its hash. Exits with 1 when one is not as it was built.",
				Action:      action(s.assetsVerify),
			},
		},
	}
}

func (s *session) assetsBuild(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	if c.Bool("locked") && c.Bool("update-lock") {
		return fault.New(fault.Invalid, "--locked and --update-lock contradict each other").WithHint("give one")
	}
	res, err := s.buildImage(ctx, build.Options{
		Arch: c.String("arch"), Profile: c.String("profile"), RootFS: c.String("rootfs"), Mirror: c.String("mirror"),
		Locked: c.Bool("locked"), UpdateLock: c.Bool("update-lock"),
	})
	if err != nil {
		return err
	}
	if c.String("arch") == runtime.GOARCH && !c.Bool("no-template") {
		s.makeTemplate(ctx)
	}
	if c.Bool("json") {
		return s.printJSON(map[string]any{
			"version": res.Set.Version, "arch": res.Set.Arch, "profile": res.Set.Profile, "kernel": res.Set.Kernel, "dir": res.Set.Dir(),
			"files": res.Set.Files, "lock": res.Lock, "moved": res.Moved, "seconds": res.Took.Seconds(),
		})
	}
	text := fmt.Sprintf("built image %s (%s, %s, kernel %s, %s) in %s\n", res.Set.Version, res.Set.Profile, res.Set.Arch, res.Set.Kernel,
		byteSize(setSize(res.Set)), res.Took.Round(time.Second))
	if res.Lock != "" {
		text += "lock: " + res.Lock + "\n"
	}
	return s.print(text)
}

// buildImage makes a guest image and shows the steps.
func (s *session) buildImage(ctx context.Context, opts build.Options) (*build.Result, error) {
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	// It shows nothing before the first step: build.Run looks at all flags before that.
	show := s.steps("building the " + opts.Profile + " image")
	defer show.done()
	opts.Home = home
	opts.Progress = func(st build.Step) {
		if st.Warning {
			show.warn(st.Name)
			return
		}
		show.now(strings.TrimSuffix(st.Name+": "+st.Detail, ": "))
	}
	return build.Run(ctx, opts) //nolint:wrapcheck // a fault, or says what it did
}

func setSize(set *assets.Set) (n int64) {
	for _, f := range set.Files {
		n += f.Size
	}
	return n
}

// setReport is one image in the JSON of status and verify.
type setReport struct {
	Version string `json:"version"`
	assets.Entry
	// Current says that new VMs of its architecture boot it.
	Current bool   `json:"current"`
	Dir     string `json:"dir"`
	// OK is of verify; Error says what is wrong.
	OK    *bool  `json:"ok,omitempty"`
	Error string `json:"error,omitempty"`
}

// reports lists the images, newest first.
func (s *session) reports() ([]setReport, []*assets.Set, error) {
	home, err := s.home()
	if err != nil {
		return nil, nil, err
	}
	sets, err := assets.All(home)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // a fault
	}
	slices.SortFunc(sets, func(a, b *assets.Set) int { return strings.Compare(b.Built+b.Version, a.Built+a.Version) })
	out := make([]setReport, len(sets))
	for i, set := range sets {
		current, err := assets.Current(home, set.Arch)
		out[i] = setReport{Version: set.Version, Entry: set.Entry, Dir: set.Dir(), Current: err == nil && current.Version == set.Version}
	}
	return out, sets, nil
}

func (s *session) assetsStatus(_ context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	list, sets, err := s.reports()
	if err != nil {
		return err
	}
	home, err := s.home()
	if err != nil {
		return err
	}
	health := assets.Health(home, runtime.GOARCH)
	if c.Bool("json") {
		err = s.printJSON(map[string]any{"ready": health.Ready, "missing": health.Missing, "images": list})
	} else {
		err = s.print(setTable(list, sets))
	}
	if err == nil && !health.Ready {
		return fault.New(fault.Unavailable, "no image for this machine can be booted: %s is missing or cut", firstOr(health.Missing, "manifest.json")).
			WithHint("make it anew with: capsem assets build")
	}
	return err
}

func setTable(list []setReport, sets []*assets.Set) string {
	t := newTable("VERSION", "PROFILE", "ARCH", "KERNEL", "ROOT", "SIZE", "BUILT", "")
	for i, r := range list {
		mark := ""
		if r.Current {
			mark = "current"
		}
		t.row(r.Version, r.Profile, r.Arch, r.Kernel, r.RootFS, byteSize(setSize(sets[i])), r.Built, mark)
	}
	return t.String()
}

func (s *session) assetsVerify(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	list, sets, err := s.reports()
	if err != nil {
		return err
	}
	bad := 0
	for i, set := range sets {
		done := s.step("reading image " + set.Version)
		err := set.Verify(ctx)
		done()
		if ctx.Err() != nil {
			return fmt.Errorf("verify: %w", ctx.Err())
		}
		ok := err == nil
		list[i].OK = &ok
		if !ok {
			bad++
			list[i].Error = fault.Line(err)
		}
		if !c.Bool("json") {
			line := fmt.Sprintf("OK    %s  %s %s\n", set.Version, set.Profile, set.Arch)
			if !ok {
				line = fmt.Sprintf("FAIL  %s  %s\n", set.Version, list[i].Error)
			}
			if err := s.print(line); err != nil {
				return err
			}
		}
	}
	if c.Bool("json") {
		if err := s.printJSON(map[string]any{"ok": bad == 0, "images": list}); err != nil {
			return err
		}
	}
	if bad > 0 {
		return &fault.Exit{Status: fault.ExitFailure}
	}
	return nil
}
