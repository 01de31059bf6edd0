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
)

// List runs go list over the whole tree for one operating system, cgo on so that files which need it are seen, and
// returns our packages and all they depend on.
func List(ctx context.Context, root, goos string) ([]Package, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-json=ImportPath,Standard,Imports,Deps,CgoFiles", "./...", "./.ci/...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("list packages for %s: %w: %s", goos, err, bytes.TrimSpace(stderr.Bytes()))
	}
	dec := json.NewDecoder(&stdout)
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
