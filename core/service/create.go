package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/policy"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// Provision creates a VM, starts it and waits until its guest answers, unless NoWait. An unnamed VM whose caller leaves before
// that is destroyed: nobody knows its id.
func (s *Service) Provision(ctx context.Context, req api.ProvisionRequest) (api.ProvisionReply, error) {
	v, err := s.create(ctx, req)
	if err != nil {
		return api.ProvisionReply{}, err
	}
	if !req.NoWait {
		if _, err := v.running(ctx); err != nil {
			return api.ProvisionReply{}, errors.Join(err, s.giveUp(ctx, v, err))
		}
	}
	return s.reply(v), nil
}

// giveUp destroys an unnamed VM whose start failed or is no longer wanted.
func (s *Service) giveUp(ctx context.Context, v *vm, why error) error {
	w := v.view()
	if w.gone || w.spec.Name != "" {
		return nil
	}
	s.log.Info("giving up a VM that is starting", "vm", w.spec.ID, "error", why)
	err := s.end(context.WithoutCancel(ctx), v, func(w view) (destroy bool, err error) {
		if w.spec.Name != "" {
			return false, fault.New(fault.NotFound, "VM %s was named meanwhile", w.spec.Name)
		}
		return true, nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (s *Service) reply(v *vm) api.ProvisionReply {
	w := v.view()
	return api.ProvisionReply{ID: w.spec.ID, UDSPath: s.socketOf(w)}
}

// socketOf is the worker's socket as a client can dial it, "" when no worker runs.
func (s *Service) socketOf(w view) string {
	if w.life == nil {
		return ""
	}
	return safesocket.Resolve(s.opts.Home.InstanceSocket(w.life.instance))
}

// create makes a VM and starts its worker.
func (s *Service) create(ctx context.Context, req api.ProvisionRequest) (*vm, error) {
	set, err := s.opts.Settings()
	if err != nil {
		return nil, err
	}
	spec, err := s.newSpec(req, set)
	if err != nil {
		return nil, err
	}
	if v, err := s.fromPool(ctx, spec, set); v != nil || err != nil {
		return v, err
	}
	return s.createOf(ctx, spec, set)
}

// createOf makes a VM of a complete spec.
func (s *Service) createOf(ctx context.Context, spec proto.VMSpec, set *config.Settings) (*vm, error) {
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return nil, err
	}
	v, err := s.enter(spec, set)
	if err != nil {
		return nil, err
	}
	if err := v.take(ctx); err != nil {
		s.remove(v)
		return nil, err
	}
	defer v.give()
	w := v.view()
	if err := s.prepare(w); err != nil {
		s.remove(v)
		return nil, err
	}
	if w.spec.Name != "" {
		if err := s.saveRegistry(); err != nil {
			return nil, errors.Join(err, s.clearAway(v, false))
		}
	}
	s.log.Info("created", "vm", w.spec.ID, "cpus", spec.CPUs, "ram_mb", spec.MemoryMB, "disk_mb", spec.DiskMB, "assets", spec.AssetVersion)
	if err := s.launch(ctx, v); err != nil {
		if w.spec.Name == "" {
			err = errors.Join(err, s.clearAway(v, true))
		}
		return nil, err
	}
	s.warmLater(v)
	return v, nil
}

// newSpec checks a request and completes it from the settings.
func (s *Service) newSpec(req api.ProvisionRequest, set *config.Settings) (proto.VMSpec, error) {
	var none proto.VMSpec
	if req.Name != "" {
		if err := api.CheckName(req.Name); err != nil {
			return none, err //nolint:wrapcheck // a fault
		}
		if strings.HasSuffix(req.Name, tmp) {
			return none, fault.New(fault.Invalid, "%s ends in %s, which marks VMs that do not stay", req.Name, tmp).WithHint("choose another name")
		}
	} else if req.Persistent {
		return none, fault.New(fault.Invalid, "a VM that stays needs a name").WithHint("give one, or leave persistent out")
	}
	if err := api.CheckSizes(req.CPUs, req.RAMMB, req.DiskMB); err != nil {
		return none, err //nolint:wrapcheck // a fault
	}
	if err := proto.ValidateEnv(req.Env); err != nil {
		return none, fault.New(fault.Invalid, "%s", err)
	}
	mounts, err := s.checkMounts(req.Mounts, req.ForceMounts)
	if err != nil {
		return none, err
	}
	req.Mounts = mounts
	version, err := s.opts.AssetVersion()
	if err != nil {
		return none, err
	}
	spec := proto.VMSpec{
		ID: req.Name, Name: req.Name, CPUs: orElse(req.CPUs, set.VM.CPUs), MemoryMB: orElse(req.RAMMB, set.VM.RAMMB),
		DiskMB: orElse(req.DiskMB, set.VM.DiskMB), Env: req.Env, AssetVersion: version, MachineID: newMachineID(), CreatedNS: time.Now().UnixNano(),
		Cold: req.Cold, Mounts: req.Mounts, Policy: req.Policy, Secrets: req.Secrets,
	}
	if err := s.checkChoice(req.Secrets); err != nil {
		return none, err
	}
	if req.Image != "" {
		if err := s.ofImage(&spec, req); err != nil {
			return none, err
		}
	}
	if _, err := policy.Parse(spec.Policy, policy.LayerVM); err != nil {
		return none, fault.Wrap(err, fault.Invalid, "the VM's own rules cannot be used: %s", fault.Line(err)).WithHint("capsem policy lint FILE says more")
	}
	refresh(&spec, set)
	return spec, nil
}

// refresh sets what follows the settings and the host at each start of a VM.
func refresh(spec *proto.VMSpec, set *config.Settings) {
	spec.Accelerator, spec.LogLevel = set.VM.Accelerator, set.Log.Level
	spec.ReadyTimeoutMS = set.VM.ReadyTimeout.Milliseconds()
	spec.Timezone = timezone()
	if spec.Family == "" {
		spec.Family = credential.NewFamily()
	}
	net := &set.Network
	spec.Network = proto.NetworkSpec{DNS: net.DNS, Proxy: net.Proxy, CAFiles: net.CAFiles, Bypass: net.Bypass, ClientCerts: net.ClientCerts}
	spec.Detect = proto.DetectSpec(set.Detect)
	spec.AskTimeoutMS = set.Network.AskTimeout.Milliseconds()
	spec.RecordMaxMB = set.VM.RecordMB
	spec.Snapshots = proto.SnapshotSpec{
		AutoMax: set.VM.Snapshots.AutoMax, ManualMax: set.VM.Snapshots.ManualMax, IntervalSecs: int(set.VM.Snapshots.Interval / time.Second),
	}
}

func orElse(n, other int) int {
	if n != 0 {
		return n
	}
	return other
}

// newMachineID makes what systemd calls a machine id: 32 hexadecimal digits.
func newMachineID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// timezone is the host's IANA zone, "" when it cannot be told.
func timezone() string {
	target, err := os.Readlink("/etc/localtime")
	if err != nil {
		return ""
	}
	_, zone, found := strings.Cut(filepath.ToSlash(target), "zoneinfo/")
	if !found || len(zone) > 64 {
		return ""
	}
	return zone
}
