package mcptools

import (
	"context"

	"capsem/core/api"
)

type forkParams struct {
	ID          string `json:"id" jsonschema:"the VM's name or id"`
	Name        string `json:"name" jsonschema:"the image's name"`
	Description string `json:"description,omitempty" jsonschema:"what it is for"`
}

type imageName struct {
	Name string `json:"name" jsonschema:"the image's name"`
}

type checkpointParams struct {
	ID          string `json:"id" jsonschema:"the named VM"`
	Name        string `json:"name" jsonschema:"the checkpoint's name"`
	Description string `json:"description,omitempty" jsonschema:"what state this is"`
}

type checkpointName struct {
	ID   string `json:"id" jsonschema:"the named VM"`
	Name string `json:"name" jsonschema:"the checkpoint's name"`
}

// addSaved adds the tools about whole machines that are kept: images and checkpoints.
func (s *Server) addSaved() {
	add(s, tool{
		name: "capsem_fork", title: "Fork a VM into an image", does: adds,
		about: "Makes an image of a VM while it runs; capsem_create with from makes VMs of it that go on with what ran.",
	}, func(ctx context.Context, c *call, in forkParams) (api.Image, error) {
		return meanwhile(ctx, c, "forking "+in.ID, nil, func() (api.Image, error) {
			return c.svc.Fork(ctx, in.ID, api.ForkRequest{Image: in.Name, Description: in.Description})
		})
	})
	add(s, tool{name: "capsem_image_list", title: "List images", does: reads, about: "Lists the images that VMs can be made of."},
		func(ctx context.Context, c *call, _ nothing) (api.ImagesReply, error) { return c.svc.Images(ctx) })
	add(s, tool{name: "capsem_image_inspect", title: "Describe an image", does: reads, about: "Says what an image is: sizes, where it is from, whether it has memory."},
		func(ctx context.Context, c *call, in imageName) (api.Image, error) { return c.svc.Image(ctx, in.Name) })
	add(s, tool{name: "capsem_image_delete", title: "Delete an image", does: destroys, about: "Removes an image. VMs that were made of it stay."},
		func(ctx context.Context, c *call, in imageName) (done, error) {
			return done{true}, c.svc.DeleteImage(ctx, in.Name)
		})
	add(s, tool{
		name: "capsem_checkpoint", title: "Make a checkpoint", does: adds,
		about: "Keeps the whole state of a named VM under a name, while it runs: memory, disk and files. capsem_rewind goes back to it.",
	}, func(ctx context.Context, c *call, in checkpointParams) (api.Checkpoint, error) {
		return meanwhile(ctx, c, "saving "+in.ID, nil, func() (api.Checkpoint, error) {
			return c.svc.Checkpoint(ctx, in.ID, api.CheckpointRequest{Name: in.Name, Description: in.Description})
		})
	})
	add(s, tool{name: "capsem_checkpoint_list", title: "List checkpoints", does: reads, about: "Lists the checkpoints of a VM."},
		func(ctx context.Context, c *call, in vmName) (api.CheckpointsReply, error) {
			return c.svc.Checkpoints(ctx, in.ID)
		})
	add(s, tool{name: "capsem_checkpoint_delete", title: "Delete a checkpoint", does: destroys, about: "Removes a checkpoint of a VM."},
		func(ctx context.Context, c *call, in checkpointName) (done, error) {
			return done{true}, c.svc.DeleteCheckpoint(ctx, in.ID, in.Name)
		})
	add(s, tool{
		name: "capsem_rewind", title: "Rewind a VM", does: destroys,
		about: "Puts a VM back to a checkpoint: memory, disk and files. What happened since is lost, its record excepted.",
	}, func(ctx context.Context, c *call, in checkpointName) (api.SandboxInfo, error) {
		reply, err := meanwhile(ctx, c, "rewinding "+in.ID, nil, func() (api.ProvisionReply, error) { return c.svc.Rewind(ctx, in.ID, in.Name) })
		if err != nil {
			return api.SandboxInfo{}, err
		}
		return c.svc.Info(ctx, reply.ID)
	})
}
