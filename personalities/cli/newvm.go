package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/policy"
	"capsem/core/proto"
)

// sizeFlags choose the size of a new VM.
func sizeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ram", Usage: fmt.Sprintf("memory of the VM: `SIZE` such as 512M or 2G (%d-%d MB)", api.MinRAMMB, api.MaxRAMMB)},
		&cli.IntFlag{Name: "cpu", Aliases: []string{"cpus"}, Usage: fmt.Sprintf("processors of the VM: `N` (%d-%d)", api.MinCPUs, api.MaxCPUs)},
		&cli.StringFlag{Name: "disk", Usage: fmt.Sprintf("most that the VM may store: `SIZE` such as 8G (%d-%d GB)", api.MinDiskMB/1024, api.MaxDiskMB/1024)},
		&cli.StringFlag{Name: "image", Aliases: []string{"from"}, Usage: "make it of an `IMAGE` (capsem fork)"},
		&cli.StringSliceFlag{Name: "mount", Aliases: []string{"v", "volume"}, Usage: "share a directory, `DIR[:GUESTDIR][:ro]`; at /mnt/NAME if nothing is said"},
		&cli.BoolFlag{Name: "force-mount", Usage: "share a directory that holds all your files, or capsem's"},
		&cli.StringFlag{Name: "policy", Usage: "rules of the VM's own in `FILE`, which narrow what policy.toml allows"},
		&cli.StringSliceFlag{Name: "secret", Usage: "of the stored secrets it gets only `NAME`; again for more (all without this)"},
		&cli.BoolFlag{Name: "no-secrets", Usage: "it gets none of the stored secrets"},
		&cli.BoolFlag{Name: "cold", Usage: "boot it, rather than go on from a saved guest"},
	}
}

func envFlag() *cli.StringSliceFlag {
	return &cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set a variable, `K=V`; K alone copies yours"}
}

// newVM reads the flags of a new VM and checks them, so that a mistake is told before anything is started.
func (s *session) newVM(c *cli.Context, name string) (api.ProvisionRequest, error) {
	if err := givenName(c); err != nil {
		return api.ProvisionRequest{}, err
	}
	req := api.ProvisionRequest{Name: name, Persistent: name != "", CPUs: c.Int("cpu"), Cold: c.Bool("cold"), Image: c.String("image")}
	var err error
	if req.RAMMB, err = parseSize("ram", c.String("ram"), 16); err != nil {
		return req, err
	}
	if req.DiskMB, err = parseSize("disk", c.String("disk"), 128); err != nil {
		return req, err
	}
	if c.IsSet("cpu") && req.CPUs == 0 {
		return req, fault.New(fault.OutOfRange, "0 CPUs is outside %d-%d", api.MinCPUs, api.MaxCPUs)
	}
	if err := api.CheckSizes(req.CPUs, req.RAMMB, req.DiskMB); err != nil {
		return req, err //nolint:wrapcheck // a fault
	}
	if req.Mounts, err = mounts(c.StringSlice("mount")); err != nil {
		return req, err
	}
	req.ForceMounts = c.Bool("force-mount")
	if req.Secrets, err = chosenSecrets(c); err != nil {
		return req, err
	}
	if req.Policy, err = ownRules(c.String("policy")); err != nil {
		return req, err
	}
	if name != "" {
		if err := api.CheckName(name); err != nil {
			return req, err //nolint:wrapcheck // a fault
		}
	}
	return req, nil
}

// chosenSecrets reads --secret and --no-secrets; nil is neither.
func chosenSecrets(c *cli.Context) ([]string, error) {
	names := c.StringSlice("secret")
	if c.Bool("no-secrets") {
		if len(names) > 0 {
			return nil, fault.New(fault.Invalid, "--secret and --no-secrets exclude each other")
		}
		return []string{}, nil
	}
	for _, name := range names {
		if err := credential.CheckName(name); err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	return names, nil
}

// ownRules reads --policy FILE.
func ownRules(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fault.New(fault.Invalid, "the rules of the VM cannot be read: %s", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, policy.MaxText+1))
	if err != nil {
		return "", fault.New(fault.Invalid, "the rules of the VM cannot be read: %s", err)
	}
	if _, err := policy.Parse(string(text), policy.LayerVM); err != nil {
		return "", fault.New(fault.Invalid, "the rules in %s cannot be used: %s", file, fault.Line(err)).WithHint("capsem policy lint %s says more", file)
	}
	return string(text), nil
}

// mounts reads --mount DIR[:GUESTDIR][:ro].
func mounts(words []string) ([]proto.Mount, error) {
	var all []proto.Mount
	for _, word := range words {
		parts := strings.Split(word, ":")
		m := proto.Mount{}
		if last := parts[len(parts)-1]; len(parts) > 1 && (last == "ro" || last == "rw") {
			m.ReadOnly = last == "ro"
			parts = parts[:len(parts)-1]
		}
		if len(parts) > 2 || parts[0] == "" {
			return nil, fault.New(fault.Invalid, "--mount %q is not DIR[:GUESTDIR][:ro]", word).WithHint("for example --mount .:/mnt/code:ro")
		}
		var err error
		if m.Host, err = filepath.Abs(parts[0]); err != nil {
			return nil, fmt.Errorf("find %s: %w", parts[0], err)
		}
		m.Guest = "/mnt/" + filepath.Base(m.Host)
		if len(parts) == 2 {
			m.Guest = path.Clean(parts[1])
		}
		if err := proto.ValidateMount(m); err != nil {
			return nil, fault.New(fault.Invalid, "--mount %s: %s", word, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// givenName refuses -n with nothing: what was meant to be kept, under a name that a script left empty, would be a temporary VM.
func givenName(c *cli.Context) error {
	if c.IsSet("name") && c.String("name") == "" {
		return fault.New(fault.Invalid, "the VM's name is empty").WithHint("give -n a name, or leave it out")
	}
	return nil
}

// environment reads -e K=V, and -e K for a variable to copy.
func (s *session) environment(c *cli.Context) (map[string]string, error) {
	env := map[string]string{}
	for _, word := range c.StringSlice("env") {
		key, value, given := strings.Cut(word, "=")
		if !given {
			value = s.env.Getenv(key)
		}
		env[key] = value
	}
	if err := proto.ValidateEnv(env); err != nil {
		return nil, fault.New(fault.Invalid, "%s", err).WithHint("write -e NAME=VALUE")
	}
	if len(env) == 0 {
		return nil, nil //nolint:nilnil // no variables is no map
	}
	return env, nil
}

// provision makes a VM and waits until its guest answers.
func (s *session) provision(ctx context.Context, svc *client.Client, req api.ProvisionRequest) (api.ProvisionReply, error) {
	what := "starting a temporary VM"
	if req.Name != "" {
		what = "starting VM " + req.Name
	}
	done := s.step(what)
	defer done()
	return svc.Provision(ctx, req)
}

// cleanupTime bounds what is done after the user has asked to leave.
const cleanupTime = 30 * time.Second

// discard destroys a temporary VM, also when ctx has ended, unless it was given a name meanwhile.
func (s *session) discard(ctx context.Context, svc *client.Client, id string) error {
	_, err := s.discardUnlessNamed(ctx, svc, id)
	return err
}

// discardUnlessNamed is discard, and returns the name of a VM that is kept.
func (s *session) discardUnlessNamed(ctx context.Context, svc *client.Client, id string) (kept string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	info, err := svc.Info(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	if err == nil && info.Persistent {
		return info.ID, nil
	}
	if err := svc.Delete(ctx, id); err != nil && !fault.Is(err, fault.NotFound) {
		return "", err //nolint:wrapcheck // a fault
	}
	return "", nil
}
