package assets

import (
	"errors"
	"syscall"

	"capsem/core/fault"
	"capsem/core/paths"
)

// Explain makes a fault.NoSpace of an error that a full disk caused, so that the user is told; others stay as they are.
func Explain(home paths.Home, err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if !full || fault.Is(err, fault.NoSpace) {
		return err
	}
	return fault.Wrap(err, fault.NoSpace, "no space left for guest images in %s", home.Assets()).WithHint("free some space on that disk and try again")
}
