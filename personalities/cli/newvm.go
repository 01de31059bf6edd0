package cli

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/proto"
)

// sizeFlags choose the size of a new VM.
func sizeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ram", Usage: "memory of the VM, such as 512M or `SIZE`"},
		&cli.IntFlag{Name: "cpu", Aliases: []string{"cpus"}, Usage: "processors of the VM"},
		&cli.StringFlag{Name: "disk", Usage: "most that the VM may store, such as 8G"},
		&cli.BoolFlag{Name: "cold", Usage: "boot it, rather than go on from a saved guest"},
	}
}

func envFlag() *cli.StringSliceFlag {
	return &cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set a variable, `K=V`; K alone copies yours"}
}

// newVM reads the flags of a new VM and checks them, so that a mistake is told before anything is started.
func (s *session) newVM(c *cli.Context, name string) (api.ProvisionRequest, error) {
	req := api.ProvisionRequest{Name: name, Persistent: name != "", CPUs: c.Int("cpu"), Cold: c.Bool("cold")}
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
	if name != "" {
		if err := api.CheckName(name); err != nil {
			return req, err //nolint:wrapcheck // a fault
		}
	}
	return req, nil
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	info, err := svc.Info(ctx, id)
	if fault.Is(err, fault.NotFound) || (err == nil && info.Persistent) {
		return nil
	}
	if err := svc.Delete(ctx, id); err != nil && !fault.Is(err, fault.NotFound) {
		return err //nolint:wrapcheck // a fault
	}
	return nil
}
