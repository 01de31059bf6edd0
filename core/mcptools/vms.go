package mcptools

import (
	"context"
	"strings"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

type createParams struct {
	Name     string            `json:"name,omitempty" jsonschema:"a name keeps the VM until it is deleted; without one it is temporary"`
	RAMMB    int               `json:"ramMb,omitempty" jsonschema:"memory in MB; the settings say otherwise"`
	CPUCount int               `json:"cpuCount,omitempty" jsonschema:"number of CPUs; the settings say otherwise"`
	DiskMB   int               `json:"diskMb,omitempty" jsonschema:"size of the disk in MB; the settings say otherwise"`
	Version  string            `json:"version,omitempty" jsonschema:"the version of the guest image it must be"`
	Env      map[string]string `json:"env,omitempty" jsonschema:"environment of every command in it"`
	From     string            `json:"from,omitempty" jsonschema:"the image to make it of (capsem_image_list); as it was forked, going on with what ran"`
	Policy   string            `json:"policy,omitempty" jsonschema:"rules of its own, as in policy.toml; they only narrow what the owner allows"`
	Secrets  []string          `json:"secrets,omitzero" jsonschema:"names of the stored secrets that it gets placeholders of; all when left out, none for an empty list"`
}

// vmName is a parameter that names a VM.
type vmName struct {
	ID string `json:"id" jsonschema:"the VM's name or id"`
}

type resumeParams struct {
	Name string `json:"name" jsonschema:"the VM's name"`
	Cold bool   `json:"cold,omitempty" jsonschema:"boot it, and give up what was in its memory"`
}

type persistParams struct {
	ID   string `json:"id" jsonschema:"the temporary VM's id"`
	Name string `json:"name" jsonschema:"the name it shall have"`
}

type purgeParams struct {
	All bool `json:"all,omitempty" jsonschema:"the named VMs too, with all that is in them"`
}

func (s *Server) addVMs() {
	add(s, tool{
		name: "capsem_create", title: "Create a VM", does: adds,
		about: "Makes a VM and waits until it answers. With a name it stays until it is deleted; without one it is temporary.",
	}, s.create)
	add(s, tool{name: "capsem_list", title: "List VMs", does: reads, about: "Lists all VMs and what state they are in."},
		func(ctx context.Context, c *call, _ nothing) (api.ListReply, error) { return c.svc.List(ctx) })
	add(s, tool{name: "capsem_info", title: "Describe a VM", does: reads, about: "Says what is known of one VM: state, sizes, image, last error."},
		func(ctx context.Context, c *call, in vmName) (api.SandboxInfo, error) { return c.svc.Info(ctx, in.ID) })
	add(s, tool{
		name: "capsem_stop", title: "Stop a VM", does: destroys,
		about: "Powers a VM off. A named one keeps its disk and files (capsem_resume starts it again), a temporary one is destroyed.",
	}, func(ctx context.Context, c *call, in vmName) (api.StopReply, error) {
		return meanwhile(ctx, c, "stopping "+in.ID, nil, func() (api.StopReply, error) { return c.svc.Stop(ctx, in.ID) })
	})
	add(s, tool{
		name: "capsem_suspend", title: "Suspend a VM", does: keeps,
		about: "Saves the memory of a named VM to disk and ends it; capsem_resume goes on with what ran.",
	}, func(ctx context.Context, c *call, in vmName) (done, error) {
		return meanwhile(ctx, c, "suspending "+in.ID, nil, func() (done, error) { return done{true}, c.svc.Suspend(ctx, in.ID) })
	})
	add(s, tool{
		name: "capsem_resume", title: "Resume a VM", does: keeps,
		about: "Starts a named VM that is stopped or suspended, unless it runs. One that was suspended goes on with what ran.",
	}, s.resume)
	add(s, tool{
		name: "capsem_persist", title: "Keep a temporary VM", does: adds, about: "Gives a temporary VM a name, so that it is kept until it is deleted.",
	}, func(ctx context.Context, c *call, in persistParams) (done, error) {
		return done{true}, c.svc.Persist(ctx, in.ID, in.Name)
	})
	add(s, tool{name: "capsem_delete", title: "Delete a VM", does: destroys, about: "Destroys a VM with its disk, files, snapshots and checkpoints. Its record stays."},
		func(ctx context.Context, c *call, in vmName) (done, error) {
			return done{true}, c.svc.Delete(ctx, in.ID)
		})
	add(s, tool{name: "capsem_purge", title: "Delete temporary VMs", does: destroys, about: "Destroys all temporary VMs, and with all the named ones too."},
		func(ctx context.Context, c *call, in purgeParams) (api.PurgeReply, error) {
			return c.svc.Purge(ctx, in.All)
		})
	add(s, tool{name: "capsem_version", title: "Versions", does: reads, about: "Says which versions of capsem and of its service run, and how the service is."}, version)
}

func (s *Server) create(ctx context.Context, c *call, in createParams) (api.SandboxInfo, error) {
	id, err := c.provision(ctx, in)
	if err != nil {
		return api.SandboxInfo{}, err
	}
	return c.svc.Info(ctx, id)
}

// provision makes a VM and waits for it, telling what it is at.
func (c *call) provision(ctx context.Context, in createParams) (string, error) {
	if in.Version != "" {
		status, err := c.svc.Status(ctx)
		if err != nil {
			return "", err
		}
		if have := status.Assets.Version; have != in.Version {
			return "", fault.New(fault.Unavailable, "there is no guest image of version %.60q; the one here is %q", in.Version, have).WithHint("leave version out")
		}
	}
	if err := proto.ValidateEnv(in.Env); err != nil {
		return "", fault.New(fault.Invalid, "%s", err)
	}
	req := api.ProvisionRequest{Name: in.Name, RAMMB: in.RAMMB, CPUs: in.CPUCount, DiskMB: in.DiskMB, Env: in.Env, Image: in.From, Policy: in.Policy, Secrets: in.Secrets}
	var step func(context.Context) string
	if in.Name != "" {
		step = func(ctx context.Context) string { return stepOf(ctx, c.svc, in.Name) }
	}
	reply, err := meanwhile(ctx, c, strings.TrimSpace("starting VM "+in.Name), step, func() (api.ProvisionReply, error) { return c.svc.Provision(ctx, req) })
	return reply.ID, err
}

// stepOf is what a VM that starts is doing.
func stepOf(ctx context.Context, svc *client.Client, name string) string {
	info, err := svc.Info(ctx, name)
	if err != nil || info.Status != lifecycle.Booting {
		return ""
	}
	return info.Step
}

func (s *Server) resume(ctx context.Context, c *call, in resumeParams) (api.SandboxInfo, error) {
	start := c.svc.Resume
	if in.Cold {
		start = c.svc.ResumeCold
	}
	step := func(ctx context.Context) string { return stepOf(ctx, c.svc, in.Name) }
	reply, err := meanwhile(ctx, c, "starting VM "+in.Name, step, func() (api.ProvisionReply, error) { return start(ctx, in.Name) })
	if err != nil {
		return api.SandboxInfo{}, err
	}
	return c.svc.Info(ctx, reply.ID)
}

// versions are what runs.
type versions struct {
	// Version, Commit and BuildTime are of this program.
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	BuildTime string `json:"build_time"`
	// Same says that the service is of the same version.
	Same    bool              `json:"same"`
	Service api.ServiceStatus `json:"service"`
}

func version(ctx context.Context, c *call, _ nothing) (versions, error) {
	status, err := c.svc.Status(ctx)
	return versions{buildinfo.Version, buildinfo.Commit, buildinfo.BuildTime, status.Version == buildinfo.Version, status}, err
}
