package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"

	"github.com/aymanbagabas/go-udiff"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/mcp/jsonc"
)

// Server is how a client starts capsem.
type Server struct {
	Command string
	Args    []string
	// Env are variables that differ from what the client has anyway.
	Env map[string]string
}

// entry is the server as a client of JSON writes it.
func (s Server) entry(c Client) map[string]any {
	e := map[string]any{"command": s.Command, "args": s.Args}
	if c == Claude || c == VSCode {
		e["type"] = "stdio"
	}
	if len(s.Env) > 0 {
		e["env"] = s.Env
	}
	return e
}

// Change is an edit of a settings file that has not been made yet.
type Change struct {
	Client Client
	// Path is the file, Real what it is a link to.
	Path, Real string
	before     []byte
	after      []byte
	mode       os.FileMode
	// exists says that the file is there.
	exists bool
}

// PlanInstall is the edit that puts capsem among a client's servers.
func PlanInstall(home string, c Client, s Server) (*Change, error) {
	return plan(home, c, func(f file, text []byte) ([]byte, error) {
		if f.key == nil {
			return setTOML(text, s)
		}
		if same, err := has(f, text, s); err != nil || same {
			return text, err
		}
		return jsonc.Set(text, append(f.key, ownName), s.entry(c))
	})
}

// PlanUninstall is the edit that takes it out.
func PlanUninstall(home string, c Client) (*Change, error) {
	return plan(home, c, func(f file, text []byte) ([]byte, error) {
		if f.key == nil {
			return removeTOML(text)
		}
		return jsonc.Remove(text, append(f.key, ownName))
	})
}

// has reports whether an entry starts the same program in the same way, whatever else it says.
func has(f file, text []byte, s Server) (bool, error) {
	tree, err := jsonc.Standard(text)
	if err != nil || len(bytes.TrimSpace(tree)) == 0 {
		return false, err
	}
	one := json.RawMessage(tree)
	for _, key := range append(f.key, ownName) {
		if one, err = childOf(one, key); err != nil {
			return false, fmt.Errorf("%w: %w", jsonc.ErrShape, err)
		}
	}
	var e entry
	if one == nil || json.Unmarshal(one, &e) != nil {
		return false, nil
	}
	return e.same(s), nil
}

func (e entry) same(s Server) bool {
	return e.Command == s.Command && reflect.DeepEqual(e.Args, s.Args) && (len(e.Env) == 0 && len(s.Env) == 0 || reflect.DeepEqual(e.Env, s.Env)) && e.URL == ""
}

func plan(home string, c Client, edit func(file, []byte) ([]byte, error)) (*Change, error) {
	f := installed(home, c)
	ch := &Change{Client: c, Path: f.path, Real: f.path, mode: 0o600}
	refuse := func(err error) error {
		return fault.Wrap(err, fault.Conflict, "%s is left as it is: %s", f.path, err).WithHint("put it right, or edit it by hand")
	}
	if target, err := filepath.EvalSymlinks(f.path); err == nil {
		ch.Real = target
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, refuse(err)
	} else if _, err := os.Lstat(f.path); err == nil {
		return nil, refuse(errors.New("it is a link to nothing"))
	}
	text, mode, err := read(ch.Real)
	if err != nil {
		return nil, refuse(err)
	}
	if ch.exists = text != nil; ch.exists {
		ch.mode = mode
	}
	after, err := edit(f, text)
	if err != nil {
		return nil, refuse(err)
	}
	ch.before, ch.after = text, after
	return ch, nil
}

// Needed reports whether the edit changes anything.
func (c *Change) Needed() bool { return !bytes.Equal(c.before, c.after) }

// Diff is the edit as a unified diff.
func (c *Change) Diff() (string, error) {
	a, b := string(c.before), string(c.after)
	text, err := udiff.ToUnified(c.Path, c.Path, a, udiff.Lines(a, b), 3)
	if err != nil {
		return "", fmt.Errorf("compare settings: %w", err)
	}
	return text, nil
}

// Apply makes the edit and returns the path of the copy of what was there, empty when there was nothing. A file that was changed
// since the edit was planned is left alone.
func (c *Change) Apply() (backup string, err error) {
	if !c.Needed() {
		return "", nil
	}
	now, _, err := read(c.Real)
	if err != nil {
		return "", fault.Wrap(err, fault.Conflict, "%s can no longer be read: %s", c.Path, err)
	}
	if !bytes.Equal(now, c.before) || (now != nil) != c.exists {
		return "", fault.New(fault.Conflict, "%s has changed meanwhile", c.Path).WithHint("try again")
	}
	if c.exists {
		if backup, err = keep(c.Real, now, c.mode); err != nil {
			return "", err
		}
	} else if err := os.MkdirAll(filepath.Dir(c.Real), 0o700); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	if err := atomicfile.Write(c.Real, c.after, c.mode); err != nil {
		return backup, fmt.Errorf("write settings: %w", err)
	}
	return backup, nil
}

// keep writes a copy beside a file, under a name that is free.
func keep(path string, text []byte, mode os.FileMode) (string, error) {
	for i := 1; ; i++ {
		name := path + ".before-capsem"
		if i > 1 {
			name += "-" + strconv.Itoa(i)
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, os.ErrExist) && i < 1000 {
			if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, text) {
				return name, nil
			}
			continue
		}
		if err != nil {
			return "", fmt.Errorf("keep a copy of the settings: %w", err)
		}
		_, err = f.Write(text)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return "", fmt.Errorf("keep a copy of the settings: %w", err)
		}
		return name, nil
	}
}
