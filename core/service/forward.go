package service

import (
	"os"

	"capsem/core/buildinfo"
	"capsem/core/export/live"
)

// openForward prepares sending records to where the settings say, and goes on with what an earlier service has not sent to its end.
func (s *Service) openForward() {
	home := s.opts.Home
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	s.forward = live.New(live.Config{
		Targets: s.targets, Running: s.recording, DB: home.RecordDB, State: home.RecordExport, Version: buildinfo.Version, Host: host, Log: s.log,
	})
	s.records.follow = s.forward.Follow
}

// targets are the targets of exports as they are set.
func (s *Service) targets() (map[string]live.Target, error) {
	set, err := s.opts.Settings()
	if err != nil {
		return nil, err
	}
	e := &set.Export
	return map[string]live.Target{
		live.OTLP: {To: e.OTLP}, live.Syslog: {To: e.Syslog, Format: e.Format}, live.Stream: {To: e.Stream, Format: e.Format},
	}, nil
}

// resumeForward has sent what VMs that run have recorded, and what is left of records that were not sent to their ends.
func (s *Service) resumeForward() {
	for _, v := range s.all() {
		if now := v.view(); now.life != nil && !now.spec.Pooled {
			s.forward.Follow(now.spec.Session())
		}
	}
	sessions, err := os.ReadDir(s.opts.Home.Records())
	if err != nil {
		s.log.Warn("cannot look for records that are to be exported", "error", err)
		return
	}
	for _, e := range sessions {
		for _, target := range []string{live.OTLP, live.Syslog, live.Stream} {
			if e.IsDir() && live.Unfinished(s.opts.Home.RecordExport(e.Name(), target)) {
				s.forward.Follow(e.Name())
				break
			}
		}
	}
}
