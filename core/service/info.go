package service

import (
	"os"
	"slices"
	"time"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// Version describes this build.
func Version() api.VersionReply {
	return api.VersionReply{
		Version: buildinfo.Version, Commit: buildinfo.Commit, BuildTime: buildinfo.BuildTime, Protocol: proto.Version, PID: os.Getpid(),
	}
}

// Status is the service's own state.
func (s *Service) Status() api.ServiceStatus {
	st := api.ServiceStatus{
		VersionReply: Version(), UptimeSecs: int64(time.Since(s.started).Seconds()), Home: s.opts.Home.Dir(),
		Accelerator: s.opts.Accelerator(), Assets: s.opts.AssetHealth(),
	}
	if set, err := s.opts.Settings(); err == nil {
		st.MaxVMs = set.VM.MaxVMs
	} else {
		st.Notices = append(st.Notices, err.Error())
	}
	for _, v := range s.all() {
		switch w := v.view(); {
		case w.spec.Pooled:
			st.Pooled++
		case lifecycle.Live(w.state):
			st.Running++
		default:
			st.Stopped++
		}
	}
	s.mu.Lock()
	st.Notices = append(st.Notices, slices.Clone(s.notices)...)
	s.mu.Unlock()
	return st
}

// List is every VM, oldest first. What each takes on disk is left out: it takes a walk to find (see Info).
func (s *Service) List() api.ListReply {
	reply := api.ListReply{Sandboxes: []api.SandboxInfo{}, AssetHealth: s.opts.AssetHealth()}
	for _, v := range s.all() {
		if w := v.view(); !w.gone && !w.spec.Pooled {
			reply.Sandboxes = append(reply.Sandboxes, s.describe(w))
		}
	}
	return reply
}

// Info is one VM.
func (s *Service) Info(id string) (api.SandboxInfo, error) {
	v, err := s.find(id)
	if err != nil {
		return api.SandboxInfo{}, err
	}
	w := v.view()
	info := s.describe(w)
	info.SizeBytes = diskUse(w.dir.Dir())
	return info, nil
}

func (s *Service) describe(w view) api.SandboxInfo {
	info := api.SandboxInfo{
		ID: w.spec.ID, Name: w.spec.Name, Status: w.state, Persistent: w.spec.Name != "",
		RAMMB: w.spec.MemoryMB, CPUs: w.spec.CPUs, DiskMB: w.spec.DiskMB, Version: w.spec.AssetVersion,
		CreatedAt: time.Unix(0, w.spec.CreatedNS).UTC().Format(time.RFC3339), Dir: w.dir.Dir(), LastError: w.lastError, Image: w.spec.Image, Idle: w.sleeps(), Mounts: w.spec.Mounts, Secrets: w.spec.Secrets,
	}
	if w.life == nil {
		return info
	}
	info.PID, info.UDSPath = w.life.pid, s.socketOf(w)
	st := w.status
	info.HypervisorPID, info.Accelerator, info.Carrier, info.Step = st.HypervisorPID, st.Accelerator, st.Carrier, st.Step
	info.BootStages, info.Warm = st.Stages, st.Warm
	info.Notes = st.Notes
	if st.ReadyNS > 0 {
		info.UptimeSecs = max(int64(time.Since(time.Unix(0, st.ReadyNS)).Seconds()), 0)
		info.BootMS = max(st.ReadyNS-st.StartedNS, 0) / int64(time.Millisecond)
	}
	return info
}
