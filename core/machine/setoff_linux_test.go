package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"capsem/core/checkpoint"
	"capsem/core/hypervisor"
	"capsem/core/paths"
	"capsem/core/template"
)

// stubborn is a machine that does not start.
type stubborn struct {
	hypervisor.Machine
	why error
}

func (s stubborn) Start(context.Context) error { return s.why }

func TestAStateIsGivenBackOnlyIfTheMachineHasNotRunFromIt(t *testing.T) {
	for name, c := range map[string]struct {
		why  error
		kept bool
	}{
		"refused":         {errors.New("refused"), true},
		"gone before":     {hypervisor.ErrGone, true},
		"gone meanwhile":  {fmt.Errorf("%w: %w", hypervisor.ErrGone, hypervisor.ErrRan), false},
		"nobody can tell": {fmt.Errorf("no answer: %w", hypervisor.ErrRan), false},
	} {
		dir := paths.VM(t.TempDir())
		err := checkpoint.Make(dir.Dir(), template.Want{}, func(*os.File) ([]byte, error) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		w := &Worker{dir: dir, log: quiet(), resuming: true}
		if err := w.setOff(t.Context(), stubborn{why: c.why}); !errors.Is(err, c.why) {
			t.Errorf("%s: %v", name, err)
		}
		if kept := checkpoint.Exists(dir.Dir()); kept != c.kept {
			t.Errorf("%s: the state is there: %v", name, kept)
		}
	}
}
