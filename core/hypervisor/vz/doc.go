// Package vz runs virtual machines with Apple's Virtualization.framework, in this process. It builds for macOS only, and is
// type-checked on Linux (.ci/darwincheck). What the library (Code-Hex/vz) lacks is made up for here: every call that may
// block is waited for under a context, its channels are drained, and nothing of a machine is touched after its end.
package vz
