// Package buildinfo holds what the linker stamps into the binary (task build passes -ldflags -X).
package buildinfo

// Version, Commit and BuildTime describe this binary. They keep these values in an unstamped build (go test, go run).
var (
	// Version is the semantic version.
	Version = "0.1.0-dev"
	// Commit is the git commit, with "-dirty" for an altered tree.
	Commit = "unknown"
	// BuildTime is RFC 3339, UTC.
	BuildTime = "unknown"
)
