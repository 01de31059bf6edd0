package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/policy"
)

// PolicyFile is one source of rules.
type PolicyFile struct {
	Path  string
	Layer policy.Layer
	// Accepted says that its rules come after all others of the layer, and that those which are there already are left out.
	Accepted bool
}

// PolicyFiles are the sources of what holds for a VM, the strongest first; without a VM what holds for all.
func PolicyFiles(home paths.Home, vm paths.VM) []PolicyFile {
	all := []PolicyFile{
		{Path: paths.CorpPolicy(), Layer: policy.LayerCorp},
		{Path: home.UserPolicy(), Layer: policy.LayerUser},
		{Path: home.AcceptedPolicy(), Layer: policy.LayerUser, Accepted: true},
	}
	if vm != "" {
		all = append(all, PolicyFile{Path: vm.Policy(), Layer: policy.LayerVM})
	}
	return all
}

// LoadPolicy reads the rules in files. One that is absent has none, so without any file everything is refused. Errors are faults
// that name file and line.
func LoadPolicy(files []PolicyFile) (*policy.Policy, error) {
	var sets []*policy.Set
	for _, f := range files {
		set, err := readPolicy(f)
		if err != nil {
			return nil, err
		}
		if set != nil {
			if f.Accepted {
				leaveOut(set, sets)
			}
			sets = append(sets, set)
		}
	}
	p, err := policy.Compile(sets...)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "the policy cannot be used: %s", fault.Line(err)).WithHint("capsem policy lint says more")
	}
	return p, nil
}

// leaveOut takes the rules out of a set that others have: a user may have opened the same presets.
func leaveOut(set *policy.Set, others []*policy.Set) {
	for _, o := range others {
		if o.Layer == set.Layer {
			set.Rules = slices.DeleteFunc(set.Rules, func(r policy.Rule) bool {
				return slices.ContainsFunc(o.Rules, func(other policy.Rule) bool { return other.ID == r.ID })
			})
			set.Git = slices.DeleteFunc(set.Git, func(r policy.GitRule) bool {
				return slices.ContainsFunc(o.Git, func(other policy.GitRule) bool { return other.ID == r.ID })
			})
		}
	}
}

func readPolicy(f PolicyFile) (*policy.Set, error) {
	text, err := read(f.Path)
	if err != nil || len(text) == 0 {
		return nil, err
	}
	set, err := policy.Parse(string(text), f.Layer)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "the policy in %s cannot be used: %s", f.Path, fault.Line(err)).
			WithHint("capsem policy lint says more")
	}
	return set, nil
}

// freshTime is for how long a policy is used without a look at its files.
const freshTime = 500 * time.Millisecond

// PolicySource is a policy that follows its files: an edit holds within a second, on connections that are open too. While a file
// cannot be used, what held before does.
type PolicySource struct {
	files []PolicyFile

	mu      sync.Mutex
	current *policy.Policy
	seen    []fileState
	looked  time.Time
	err     error
}

// fileState tells whether a file has changed.
type fileState struct {
	size  int64
	mtime time.Time
	inode any
}

// NewPolicySource reads the files for the first time. When they cannot be used, everything is refused until they can, and Err says why.
func NewPolicySource(files []PolicyFile) *PolicySource {
	s := &PolicySource{files: files}
	s.seen = s.look()
	if s.current, s.err = LoadPolicy(files); s.err != nil {
		s.current = nothing()
	}
	s.looked = time.Now()
	return s
}

// nothing is the policy without rules: it refuses everything.
func nothing() *policy.Policy {
	p, err := policy.Compile()
	if err != nil {
		panic(fmt.Sprintf("the empty policy: %v", err)) // a test holds it
	}
	return p
}

// Current is the policy that holds now.
func (s *PolicySource) Current() *policy.Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) < freshTime {
		return s.current
	}
	s.looked = time.Now()
	now := s.look()
	if same(now, s.seen) {
		return s.current
	}
	s.seen = now
	p, err := LoadPolicy(s.files)
	if s.err = err; err == nil {
		s.current = p
	}
	return s.current
}

// Err is why the files cannot be used at present, nil when they can.
func (s *PolicySource) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Move follows the VM's own rules to another place, when the VM gets a name.
func (s *PolicySource) Move(files []PolicyFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = files
}

func (s *PolicySource) look() []fileState {
	out := make([]fileState, len(s.files))
	for i, f := range s.files {
		info, err := os.Stat(f.Path)
		switch {
		case err == nil:
			out[i] = fileState{info.Size(), info.ModTime(), inodeOf(info)}
		case !errors.Is(err, fs.ErrNotExist):
			out[i] = fileState{size: -1}
		}
	}
	return out
}

func same(a, b []fileState) bool {
	for i := range a {
		if i >= len(b) || a[i].size != b[i].size || !a[i].mtime.Equal(b[i].mtime) || a[i].inode != b[i].inode {
			return false
		}
	}
	return len(a) == len(b)
}
