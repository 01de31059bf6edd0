// Package sandbox takes from a process what it does not need, for good: on Linux files by Landlock, system calls by seccomp, and on macOS
// all of it by a profile of sandbox-exec. The aggregator and the built-in server lock themselves, or, on macOS, are started locked up
// (Wrap) and see whether they are; a program of the owner's is started through Launch, which locks itself and then becomes it.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Program is a program of the owner's, and what it may use.
type Program struct {
	// Path is absolute. Args are without the program's name; Env is all of its environment.
	Path string   `cbor:"path"`
	Args []string `cbor:"args,omitempty"`
	Env  []string `cbor:"env,omitempty"`
	// Dir is its own directory, where it begins and may write.
	Dir string `cbor:"dir"`
	// Read and Write are further paths that it may use, Deny such as it may not use although they are within one of those.
	Read  []string `cbor:"read,omitempty"`
	Write []string `cbor:"write,omitempty"`
	// Network lets it open connections over IP.
	Network bool `cbor:"network,omitempty"`
}

// maxPaths bounds the lists of a Program.
const maxPaths = 64

// Validate checks what does not follow from the types. forbidden are directories that no path may be in, or lead to.
func (p *Program) Validate(forbidden ...string) error {
	if len(p.Read) > maxPaths || len(p.Write) > maxPaths || len(p.Args) > 256 || len(p.Env) > 256 {
		return errors.New("a list is too long")
	}
	for _, path := range append(append([]string{p.Path}, p.Read...), p.Write...) {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
			return fmt.Errorf("path %.200q is not absolute and clean", path)
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return fmt.Errorf("path %.200q cannot be used: %w", path, err)
		}
		for _, dir := range forbidden {
			if target == dir || strings.HasPrefix(target, dir+"/") || strings.HasPrefix(dir, strings.TrimSuffix(target, "/")+"/") {
				return fmt.Errorf("path %.200q holds, or is part of, what capsem keeps for itself", path)
			}
		}
	}
	return nil
}

// Lookup finds the program of a command in the directories of the system, and gives its path.
func Lookup(command string) (string, error) {
	if filepath.IsAbs(command) {
		return filepath.Clean(command), nil
	}
	if filepath.Base(command) == command {
		for _, dir := range programDirs {
			path := filepath.Join(dir, command)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("there is no program %.80q in the directories of the system; give its path", command)
}
