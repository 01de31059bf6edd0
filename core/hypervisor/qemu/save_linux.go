package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"capsem/core/hypervisor"
)

const (
	// firstLook and longestLook are how long to wait between two questions of how far a state has come.
	firstLook, longestLook = time.Millisecond, 20 * time.Millisecond
	// noLimit is more bytes a second than any disk takes; QEMU's default would be 128 MiB.
	noLimit = 1 << 40
)

var _ hypervisor.Saver = (*machine)(nil)

// ask runs one command of QMP and decodes what it returns, which may be nil.
func (m *machine) ask(command string, arguments map[string]any, f *os.File, out any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	text, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode %s: %w", command, err)
	}
	line, err := m.monitor.runWith(text, f)
	if err != nil || out == nil {
		return err
	}
	var reply message
	if err = json.Unmarshal(line, &reply); err == nil {
		err = json.Unmarshal(reply.Return, out)
	}
	if err != nil {
		return fmt.Errorf("decode answer to %s: %w", command, err)
	}
	return nil
}

// Save writes the paused machine's state.
func (m *machine) Save(ctx context.Context, to *os.File) error {
	return m.run(ctx, "save", func() error {
		if st, err := m.status(); err != nil || st == "running" {
			return errors.Join(err, errors.New("it is not paused"))
		}
		if err := m.beginSave(to); err != nil {
			return err
		}
		if err := m.awaitSaved(ctx); err != nil {
			return errors.Join(err, m.ask("migrate_cancel", nil, nil, nil))
		}
		return nil
	})
}

// stateName is what QEMU calls the file of a state.
const stateName = "state"

// pass gives QEMU the file of a state, which leaves out memory that is in a file of its own if ignoreShared. That of a machine which
// runs on a private view of such a file is in the state.
func (m *machine) pass(f *os.File, ignoreShared bool) error {
	if err := m.ask("getfd", map[string]any{"fdname": stateName}, f, nil); err != nil {
		return err
	}
	capabilities := []map[string]any{{"capability": "x-ignore-shared", "state": ignoreShared}}
	return m.ask("migrate-set-capabilities", map[string]any{"capabilities": capabilities}, nil, nil)
}

func (m *machine) beginSave(to *os.File) error {
	err := m.pass(to, m.spec.RAM != nil && m.spec.RAMShared)
	if err == nil {
		err = m.ask("migrate-set-parameters", map[string]any{"max-bandwidth": noLimit}, nil, nil)
	}
	if err == nil {
		err = m.ask("migrate", map[string]any{"uri": "fd:" + stateName}, nil, nil)
	}
	return err
}

// load reads the state that the machine goes on from.
func (m *machine) load(ctx context.Context) error {
	err := m.pass(m.spec.State, m.spec.RAM != nil)
	if err == nil {
		err = m.ask("migrate-incoming", map[string]any{"uri": "fd:" + stateName}, nil, nil)
	}
	if err != nil {
		return err
	}
	return m.awaitLoaded(ctx)
}

// look waits a little longer each time.
func look(ctx context.Context, ready func() (bool, error)) error {
	pause := firstLook
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if done, err := ready(); done || err != nil {
			return err
		}
		select {
		case <-timer.C:
			pause = min(2*pause, longestLook)
			timer.Reset(pause)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// migration is what query-migrate answers.
type migration struct {
	Status string `json:"status"`
	Error  string `json:"error-desc"`
}

func (m *machine) awaitSaved(ctx context.Context) error {
	return look(ctx, func() (bool, error) {
		var state migration
		if err := m.ask("query-migrate", nil, nil, &state); err != nil {
			return false, err
		}
		switch state.Status {
		case "completed":
			return true, nil
		case "failed", "cancelled":
			return false, fmt.Errorf("the state was not written: %.500s", state.Error)
		}
		return false, nil
	})
}

// status is QEMU's word for what the machine does.
func (m *machine) status() (string, error) {
	var st struct {
		Status string `json:"status"`
	}
	err := m.ask("query-status", nil, nil, &st)
	return st.Status, err
}

// awaitLoaded waits until the state that the machine goes on from is read. A QEMU that cannot read it ends.
func (m *machine) awaitLoaded(ctx context.Context) error {
	return look(ctx, func() (bool, error) {
		st, err := m.status()
		return err == nil && st != "inmigrate", err
	})
}

// proceed lets the virtual CPUs run and looks whether they do: a machine that could not take its disks looks alive and never runs.
func (m *machine) proceed() error {
	m.ran.Store(true) // until QEMU says that they have not
	err := m.qmp.Cont()
	if err == nil && m.spec.State == nil {
		return nil
	}
	st, asked := m.status()
	switch {
	case asked != nil:
		return errors.Join(err, asked)
	case slices.Contains(neverRan, st):
		m.ran.Store(false)
	}
	if err == nil && st != "running" && st != "io-error" {
		err = fmt.Errorf("it does not run: QEMU says %.40q", st)
	}
	return err //nolint:wrapcheck // by the caller
}

// neverRan are QEMU's words for a machine that has loaded its state, and waits.
var neverRan = []string{"prelaunch", "inmigrate", "paused", "postmigrate"}

// layout is raised when the machine that is made of the same spec changes, so that older states do not fit it any more.
const layout = 2

// StateKey is what a saved state depends on besides the spec: QEMU itself, our choice of machine, and under KVM the host's CPU and
// kernel.
func StateKey(accelerator hypervisor.Accelerator) (string, error) {
	program, err := Program(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	var host string
	if accelerator == hypervisor.KVM {
		host, err = identity(program)
	} else {
		host, err = programKey(program)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("qemu layout %d; %s", layout, host), nil
}

func programKey(program string) (string, error) {
	path, err := filepath.EvalSymlinks(program)
	if err != nil {
		return "", fmt.Errorf("find QEMU: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find QEMU: %w", err)
	}
	return binary(path, info), nil
}
