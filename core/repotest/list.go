package repotest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// List runs go list over the whole tree for one operating system, cgo on so that files which need it are seen, and
// returns our packages and all they depend on, some of them twice.
func List(ctx context.Context, root, goos string) ([]Package, error) {
	var pkgs []Package
	// Wildcards leave out directories that begin with a dot, unless go list starts in one.
	for _, dir := range []string{root, filepath.Join(root, ".ci")} {
		cmd := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-json=ImportPath,Standard,Imports,Deps,CgoFiles", "./...")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=1")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("list packages for %s: %w: %s", goos, err, bytes.TrimSpace(stderr.Bytes()))
		}
		more, err := decode(&stdout)
		if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, more...)
	}
	return pkgs, nil
}

func decode(r io.Reader) ([]Package, error) {
	dec := json.NewDecoder(r)
	var pkgs []Package
	for {
		var p Package
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the package list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}
