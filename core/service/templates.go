package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/template"
	"capsem/core/tree"
)

const (
	// maxTemplates is how many templates are kept; the one that was used least recently goes.
	maxTemplates = 4
	// memoryIdle is how long a template's memory is kept ready after a VM last started from it.
	memoryIdle = 10 * time.Minute
	// makingTime bounds the making of one template.
	makingTime = 15 * time.Minute
	// retryAfter is how long a template that could not be made is not tried again by itself.
	retryAfter = 10 * time.Minute
)

// templates is what VMs start warm from. Its memory is held by the service, so that all VMs share it.
type templates struct {
	opts *Options

	// mu guards what follows; it is held while memory is read, which takes a fifth of a second.
	mu     sync.Mutex
	memory map[string]*kept
	failed map[string]time.Time
	closed bool

	// making is held by whoever has a template made.
	making chan struct{}
}

// kept is the memory of one template.
type kept struct {
	ram  *os.File
	idle *time.Timer
}

func newTemplates(opts *Options) *templates {
	return &templates{opts: opts, memory: map[string]*kept{}, failed: map[string]time.Time{}, making: make(chan struct{}, 1)}
}

// sweep removes what an interrupted making has left, unless one goes on.
func (t *templates) sweep() error {
	if _, err := os.Stat(template.Dir(t.opts.Home)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := guard.Acquire(template.Lock(t.opts.Home))
	if errors.Is(err, guard.ErrHeld) {
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	return errors.Join(template.Sweep(t.opts.Home), lock.Release())
}

// take returns the memory of the template that fits a VM, as a file of the caller's; nil when there is none.
func (t *templates) take(want template.Want) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tpl, err := template.Find(t.opts.Home, want)
	if errors.Is(err, fs.ErrNotExist) || t.closed {
		return nil, nil //nolint:nilnil // no template is no memory
	}
	var m *kept
	if err == nil {
		m, err = t.remember(tpl)
	}
	if err != nil {
		return nil, errors.Join(err, template.Remove(t.opts.Home, want.Key()))
	}
	tpl.Touch()
	return duplicate(m.ram)
}

// remember reads the memory of a template unless it is there.
func (t *templates) remember(tpl *template.Template) (*kept, error) {
	key := tpl.Key()
	m := t.memory[key]
	if m == nil {
		ram, err := tpl.Memory()
		if err != nil {
			return nil, err //nolint:wrapcheck // says what it did
		}
		m = &kept{ram: ram}
		m.idle = time.AfterFunc(memoryIdle, func() { t.forget(key) })
		t.memory[key] = m
	}
	m.idle.Reset(memoryIdle)
	return m, nil
}

// forget gives the memory of a template back. VMs that run from it keep what they use.
func (t *templates) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetLocked(key)
}

func (t *templates) forgetLocked(key string) {
	if m := t.memory[key]; m != nil {
		m.idle.Stop()
		_ = m.ram.Close() // only read
		delete(t.memory, key)
	}
}

func (t *templates) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for key := range t.memory {
		t.forgetLocked(key)
	}
}

// due reports whether a template should be made now without being asked for.
func (t *templates) due(want template.Want) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.failed[want.Key()]) < retryAfter {
		return false
	}
	return t.missing(want)
}

func (t *templates) missing(want template.Want) bool {
	_, err := template.Find(t.opts.Home, want)
	return errors.Is(err, fs.ErrNotExist)
}

func (t *templates) note(want template.Want, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failed, want.Key())
	if err != nil {
		t.failed[want.Key()] = time.Now()
	}
}

// warmth is the memory that a VM that never ran may start from; nil when it is to boot.
func (s *Service) warmth(spec *proto.VMSpec) *os.File {
	want, ok := s.wanted(spec)
	if !ok {
		return nil
	}
	ram, err := s.templates.take(want)
	if err != nil {
		s.log.Warn("a template is of no use and was removed", "error", err)
		return nil
	}
	return ram
}

// wanted is the template for a VM; false when it is to boot.
func (s *Service) wanted(spec *proto.VMSpec) (template.Want, bool) {
	if s.opts.Template == nil || spec.Cold || spec.Image != "" {
		return template.Want{}, false
	}
	set, err := s.opts.Settings()
	if err != nil || !set.VM.WarmStart {
		return template.Want{}, false
	}
	want, err := s.opts.Template(s.ctx, spec)
	if err != nil {
		s.log.Debug("no template for this VM", "vm", spec.ID, "error", err)
		return template.Want{}, false
	}
	return want, true
}

// warmLater has a template made in the background for VMs like this one, once it runs.
func (s *Service) warmLater(v *vm) {
	spec := v.view().spec
	want, ok := s.wanted(&spec)
	if !ok || !s.templates.due(want) {
		return
	}
	s.wg.Go(func() {
		if _, err := v.running(s.ctx); err != nil || !s.templates.due(want) {
			return
		}
		if err := s.makeTemplate(s.ctx, spec, want); err != nil && s.ctx.Err() == nil {
			s.log.Warn("no template could be made; VMs like this one boot", "vm", spec.ID, "error", err)
		}
	})
}

// makeTemplate has a template made for VMs of that spec. One that is made at the same time is waited for first.
func (s *Service) makeTemplate(ctx context.Context, spec proto.VMSpec, want template.Want) (err error) {
	select {
	case s.templates.making <- struct{}{}:
		defer func() { <-s.templates.making }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !s.templates.due(want) {
		return nil
	}
	defer func() { s.templates.note(want, err) }()
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return err
	}
	dir, err := template.Draft(s.opts.Home)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	s.log.Info("making a template", "key", want.Key(), "cpus", want.CPUs, "ram_mb", want.MemoryMB)
	begin := time.Now()
	err = s.runMaker(ctx, spec, paths.VM(dir))
	if err == nil {
		_, err = template.Find(s.opts.Home, want)
	}
	if err != nil {
		return errors.Join(err, tree.Remove(dir))
	}
	s.log.Info("made a template", "key", want.Key(), "took", time.Since(begin).Round(time.Millisecond))
	return errors.Join(s.dropStale(want), s.trim(maxTemplates))
}

// dropStale removes templates that no new VM will start from: those of another image, or of a hypervisor or processor that this
// machine had before.
func (s *Service) dropStale(want template.Want) error {
	all, err := template.List(s.opts.Home)
	for _, t := range all {
		if t.AssetVersion != want.AssetVersion || t.Accelerator == want.Accelerator && t.Host != want.Host {
			s.log.Info("removing a stale template", "key", t.Key())
			s.templates.forget(t.Key())
			err = errors.Join(err, template.Remove(s.opts.Home, t.Key()))
		}
	}
	return err //nolint:wrapcheck // says what it did
}

// runMaker runs a worker that makes a template of a draft.
func (s *Service) runMaker(ctx context.Context, spec proto.VMSpec, dir paths.VM) error {
	ctx, cancel := context.WithTimeout(ctx, makingTime)
	defer cancel()
	spec.ID, spec.Name, spec.FormerID, spec.Env, spec.MachineID, spec.Timezone = "template", "", "", nil, newMachineID(), ""
	if os.Geteuid() == 0 {
		s.mu.Lock()
		spec.UID = s.freeUIDLocked()
		s.mu.Unlock()
		spec.GID = spec.UID
	}
	if err := writeSpec(dir.Spec(), spec); err != nil {
		return err
	}
	argv := s.opts.Worker
	cmd := exec.CommandContext(ctx, argv[0], append(append([]string{}, argv[1:]...), "--home", s.opts.Home.Dir(), "--dir", dir.Dir(), "--make-template")...)
	if s.opts.WorkerName != "" {
		cmd.Args[0] = s.opts.WorkerName
	}
	cmd.Env, cmd.Dir = append([]string{}, s.opts.WorkerEnv...), "/"
	cmd.SysProcAttr = background()
	cmd.Cancel = func() error { return cmd.Process.Kill() } // QEMU dies with it
	var said saidLast
	cmd.Stderr = &said
	err := cmd.Run()
	switch text := orElseText(orElseText(strings.TrimSpace(string(said)), lastWords(dir)), fmt.Sprint(err)); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case strings.Contains(text, syscall.ENOSPC.Error()):
		return fault.Wrap(err, fault.NoSpace, "no space left to make a template").WithHint("free some space on the disk of %s", template.Dir(s.opts.Home))
	default:
		return fault.Wrap(err, fault.Internal, "the template was not made: %s", text)
	}
}

// saidLast keeps the end of what a process says.
type saidLast []byte

const maxSaid = 4 << 10

func (l *saidLast) Write(p []byte) (int, error) {
	*l = append(*l, p...)
	*l = (*l)[max(0, len(*l)-maxSaid):]
	return len(p), nil
}

func orElseText(text, other string) string {
	if text != "" {
		return text
	}
	return other
}

// trim removes templates beyond a number, those that were used least recently.
func (s *Service) trim(most int) error {
	all, err := template.List(s.opts.Home)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	for _, t := range all[min(most, len(all)):] {
		s.log.Info("removing a template", "key", t.Key())
		s.templates.forget(t.Key())
		err = errors.Join(err, template.Remove(s.opts.Home, t.Key()))
	}
	return err
}

// Templates lists the templates.
func (s *Service) Templates() (api.TemplatesReply, error) {
	all, err := template.List(s.opts.Home)
	if err != nil {
		return api.TemplatesReply{}, err //nolint:wrapcheck // says what it did
	}
	reply := api.TemplatesReply{Templates: []api.Template{}, Making: len(s.templates.making) > 0}
	for _, t := range all {
		reply.Templates = append(reply.Templates, api.Template{
			Key: t.Key(), Version: t.AssetVersion, CPUs: t.CPUs, RAMMB: t.MemoryMB, DiskMB: t.DiskMB, Accelerator: t.Accelerator,
			MadeAt: time.Unix(0, t.MadeNS).UTC().Format(time.RFC3339), UsedAt: t.Used().UTC().Format(time.RFC3339), SizeBytes: diskUse(t.Dir),
		})
	}
	return reply, nil
}

// PruneTemplates removes all templates. VMs that run are not concerned.
func (s *Service) PruneTemplates() (api.PruneTemplatesReply, error) {
	all, err := template.List(s.opts.Home)
	if err == nil {
		err = s.trim(0)
	}
	if err != nil {
		return api.PruneTemplatesReply{}, err //nolint:wrapcheck // says what it did
	}
	return api.PruneTemplatesReply{Success: true, Pruned: len(all)}, nil
}

// RebuildTemplate makes the template for VMs of these sizes anew, and waits for it.
func (s *Service) RebuildTemplate(ctx context.Context, req api.RebuildTemplateRequest) (api.TemplatesReply, error) {
	var none api.TemplatesReply
	set, err := s.opts.Settings()
	if err != nil {
		return none, err
	}
	spec, err := s.newSpec(api.ProvisionRequest{CPUs: req.CPUs, RAMMB: req.RAMMB, DiskMB: req.DiskMB}, set)
	if err != nil {
		return none, err
	}
	if s.opts.Template == nil {
		return none, fault.New(fault.Unavailable, "there are no templates on this system")
	}
	want, err := s.opts.Template(ctx, &spec)
	if err != nil {
		return none, err
	}
	if req.IfMissing && (!set.VM.WarmStart || !s.templates.missing(want)) {
		return s.Templates()
	}
	s.templates.forget(want.Key())
	if err := template.Remove(s.opts.Home, want.Key()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return none, err //nolint:wrapcheck // says what it did
	}
	s.templates.note(want, nil)
	if err := s.makeTemplate(ctx, spec, want); err != nil {
		return none, err
	}
	return s.Templates()
}

// newVMDir reports whether a VM has never run: it has no system disk.
func newVMDir(dir paths.VM) bool {
	left, err := filepath.Glob(filepath.Join(dir.Dir(), "system.*"))
	return err == nil && len(left) == 0
}

// errDuplicate names what duplicate did.
func errDuplicate(err error) error { return fmt.Errorf("pass memory on: %w", err) }
