package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/image"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/policy"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// Fork makes an image of a VM: of one that runs with its memory, so that what runs in it goes on in VMs of the image as it does in
// the VM itself.
func (s *Service) Fork(ctx context.Context, id string, req api.ForkRequest) (api.Image, error) {
	var none api.Image
	v, err := s.find(id)
	if err != nil {
		return none, err
	}
	if err := v.take(ctx); err != nil {
		return none, err
	}
	defer v.give()
	w := v.view()
	img, err := s.keep(ctx, v, image.Images(s.opts.Home), req.Image, req.Description)
	if err != nil {
		return none, err
	}
	s.log.Info("forked", "vm", w.spec.ID, "image", img.Name, "memory", img.HasMemory())
	return describeImage(img), nil
}

// keep makes an image of a VM on a shelf. The caller has the VM's turn.
func (s *Service) keep(ctx context.Context, v *vm, on image.Shelf, name, description string) (*image.Image, error) {
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return nil, err
	}
	if v.view().life == nil {
		if err := s.settleFiles(ctx, v); err != nil {
			return nil, err
		}
	}
	w := v.view()
	rules, err := ownRules(w.dir)
	if err != nil {
		return nil, err
	}
	s.opts.step("begin image")
	dir, err := on.Begin(name)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	img, err := s.keepIn(ctx, w, dir, image.Manifest{
		Name: name, Description: description, AssetVersion: w.spec.AssetVersion, CPUs: w.spec.CPUs, MemoryMB: w.spec.MemoryMB,
		DiskMB: w.spec.DiskMB, Env: w.spec.Env, Mounts: w.spec.Mounts, Policy: rules, Family: w.spec.Family, Secrets: w.spec.Secrets, Budget: w.spec.BudgetFamily(),
		From: w.spec.ID, Parent: w.spec.Image,
	})
	if err != nil {
		return nil, noRoom(errors.Join(err, image.Abandon(dir)), "no space left for %s", name)
	}
	return img, nil
}

func (s *Service) keepIn(ctx context.Context, w view, dir string, m image.Manifest) (*image.Image, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), suspendTime)
	defer cancel()
	var err error
	switch {
	case w.life != nil && w.state == lifecycle.Running:
		err = s.forkRunning(ctx, w, dir)
	case w.life != nil || w.gone:
		err = notRunning(w)
	default:
		s.opts.step("copy VM")
		err = image.CopyVM(w.dir, dir)
		if err == nil && w.state != lifecycle.Suspended {
			err = checkpoint.Discard(dir, true)
		}
	}
	if err != nil {
		return nil, err
	}
	s.opts.step("finish image")
	return image.Finish(dir, m) //nolint:wrapcheck // says what it did
}

func (s *Service) forkRunning(ctx context.Context, w view, dir string) error {
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(w.life.instance))
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer conn.Close()
	_, err = conn.Call(ctx, proto.WorkerRequest{Op: proto.OpFork, Dir: dir})
	return err //nolint:wrapcheck // a fault
}

// Images lists the images.
func (s *Service) Images() (api.ImagesReply, error) {
	all, err := image.Images(s.opts.Home).List()
	if err != nil {
		return api.ImagesReply{}, err //nolint:wrapcheck // says what it did
	}
	reply := api.ImagesReply{Images: []api.Image{}}
	for _, i := range all {
		reply.Images = append(reply.Images, describeImage(i))
	}
	return reply, nil
}

// Image is one image.
func (s *Service) Image(name string) (api.Image, error) {
	i, err := image.Images(s.opts.Home).Find(name)
	if err != nil {
		return api.Image{}, err //nolint:wrapcheck // a fault
	}
	return describeImage(i), nil
}

// DeleteImage removes an image. VMs of it have all they need.
func (s *Service) DeleteImage(name string) error {
	return image.Images(s.opts.Home).Delete(name) //nolint:wrapcheck // a fault
}

// ExportImage writes an image as one archive. begin is called once it is known that there is one.
func (s *Service) ExportImage(name string, begin func() io.Writer) error {
	i, err := image.Images(s.opts.Home).Find(name)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return i.Export(begin()) //nolint:wrapcheck // says what it did
}

// ImportImage makes an image of an archive.
func (s *Service) ImportImage(name string, archive io.Reader) (api.Image, error) {
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return api.Image{}, err
	}
	i, err := image.Import(s.opts.Home, name, archive)
	if err != nil {
		return api.Image{}, noRoom(err, "no space left for image %s", name)
	}
	s.log.Info("imported", "image", name)
	return describeImage(i), nil
}

// noRoom says that an error is a full disk, if it is one.
func noRoom(err error, format string, args ...any) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(err, fault.NoSpace, format, args...).WithHint("free some space on that disk")
	}
	return err
}

func describeImage(i *image.Image) api.Image {
	return api.Image{
		Name: i.Name, Description: i.Description, CreatedAt: time.Unix(0, i.CreatedNS).UTC().Format(time.RFC3339), Version: i.AssetVersion,
		CPUs: i.CPUs, RAMMB: i.MemoryMB, DiskMB: i.DiskMB, From: i.From, Parent: i.Parent, Memory: i.HasMemory(), SizeBytes: diskUse(i.Dir),
		Env: slices.Sorted(maps.Keys(i.Env)),
	}
}

// ofImage completes the spec of a VM that is made of an image.
func (s *Service) ofImage(spec *proto.VMSpec, req api.ProvisionRequest) error {
	i, err := image.Images(s.opts.Home).Find(req.Image)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if req.DiskMB != 0 && req.DiskMB != i.DiskMB {
		return fault.New(fault.OutOfRange, "the disk of image %s has %d MB, and keeps that size", i.Name, i.DiskMB).WithHint("leave --disk out")
	}
	spec.Image, spec.AssetVersion, spec.DiskMB, spec.Budget = i.Name, i.AssetVersion, i.DiskMB, i.Budget
	spec.CPUs, spec.MemoryMB = orElse(req.CPUs, i.CPUs), orElse(req.RAMMB, i.MemoryMB)
	spec.ForkedMemory = i.HasMemory() && !req.Cold
	spec.Family = i.Family
	if spec.Secrets == nil {
		spec.Secrets = i.Secrets
	}
	// The guest's memory knows the directories of the VM that was forked by their places in this list.
	spec.Mounts = slices.Concat(i.Mounts, req.Mounts)
	if len(spec.Mounts) >= proto.MaxShares {
		return fault.New(fault.OutOfRange, "%d directories to share are more than %d", len(spec.Mounts), proto.MaxShares-1)
	}
	for _, m := range i.Mounts {
		if slices.ContainsFunc(req.Mounts, func(other proto.Mount) bool { return other.Guest == m.Guest }) {
			return fault.New(fault.Conflict, "VMs of image %s share %s as %s already", i.Name, m.Host, m.Guest)
		}
	}
	if spec.Policy == "" {
		spec.Policy = i.Policy
	}
	if len(i.Env) > 0 {
		env := maps.Clone(i.Env)
		maps.Copy(env, req.Env)
		spec.Env = env
	}
	if err := proto.ValidateEnv(spec.Env); err != nil {
		return fault.New(fault.Invalid, "with those of image %s: %s", i.Name, err)
	}
	return nil
}

// ownRules are the rules of a VM's own, "" when it has none.
func ownRules(dir paths.VM) (string, error) {
	text, err := readBounded(dir.Policy(), policy.MaxText)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the VM's rules: %w", err)
	}
	return string(text), nil
}
