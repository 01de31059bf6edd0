//go:build !linux

package sandbox

import "errors"

var errNone = errors.New("MCP servers that are programs can only be started on Linux, where they can be kept from the rest of the machine")

// LockNetworkOnly does nothing here: there is no way known to take rights from a running process.
func LockNetworkOnly() error { return nil }

// LockAll does nothing here, as above.
func LockAll() error { return nil }

// Supported says no.
func Supported() error { return errNone }

// Launch refuses.
func Launch(*Program) error { return errNone }

// Lookup finds none.
func Lookup(string) (string, error) { return "", errNone }
