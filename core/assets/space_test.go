package assets

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"capsem/core/fault"
	"capsem/core/paths"
)

func TestAFullDiskIsSaid(t *testing.T) {
	t.Parallel()
	full := fmt.Errorf("write initrd: %w", &os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC})
	err := Explain(paths.Home("/h"), errors.Join(full, nil))
	if line := fault.Line(err); !fault.Is(err, fault.NoSpace) || !strings.Contains(line, "/h/assets") || !strings.Contains(line, "free some space") {
		t.Errorf("got %q", line)
	}
	other := errors.New("something else")
	if got := Explain(paths.Home("/h"), other); got != other { //nolint:errorlint // the very same
		t.Errorf("got %v", got)
	}
	if got := Explain(paths.Home("/h"), nil); got != nil {
		t.Errorf("got %v", got)
	}
}
