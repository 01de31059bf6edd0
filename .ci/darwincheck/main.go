// Command darwincheck type-checks all of this module as it is built for macOS, cgo included, without a Mac: every package and
// what it imports is parsed and checked by go/types, with calls into C taken on trust.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

const goos, goarch = "darwin", "arm64"

func main() {
	n, problems, err := check(context.Background(), ".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "darwincheck:", err)
		os.Exit(1)
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
	fmt.Printf("%d packages type-check for %s/%s\n", n, goos, goarch)
}

// listed is what "go list -json" says of one package.
type listed struct {
	ImportPath, Dir   string
	GoFiles, CgoFiles []string
	ImportMap         map[string]string
	Standard, DepOnly bool
	Error             *struct{ Err string }
	Incomplete        bool
}

// check returns the number of packages of the module in dir and what is wrong in them.
func check(ctx context.Context, dir string) (n int, problems []string, err error) {
	pkgs, err := list(ctx, dir)
	if err != nil {
		return 0, nil, err
	}
	c := &checker{fset: token.NewFileSet(), done: map[string]*types.Package{"unsafe": types.Unsafe}}
	parsed := c.parse(pkgs)
	for i, p := range pkgs { // what is imported comes first
		if p.ImportPath == "unsafe" {
			continue
		}
		if p.Error != nil && !p.DepOnly {
			problems = append(problems, p.ImportPath+": "+p.Error.Err)
		}
		found := c.one(p, parsed[i])
		if !p.DepOnly {
			n++
			problems = append(problems, found...)
		}
	}
	return n, problems, nil
}

// list runs go list for the whole module as it is for macOS.
func list(ctx context.Context, dir string) ([]listed, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-json=ImportPath,Dir,GoFiles,CgoFiles,ImportMap,Standard,DepOnly,Error,Incomplete", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w: %s", err, stderr.Bytes())
	}
	var pkgs []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read list of packages: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// checker holds what was checked so far.
type checker struct {
	fset *token.FileSet
	done map[string]*types.Package
}

// sources is one package's files, and what is wrong with their syntax.
type sources struct {
	files    []*ast.File
	problems []string
}

// parse reads all files, several packages at once.
func (c *checker) parse(pkgs []listed) []sources {
	out := make([]sources, len(pkgs))
	slots := make(chan struct{}, runtime.NumCPU())
	var wg sync.WaitGroup
	for i, p := range pkgs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, name := range append(append([]string{}, p.GoFiles...), p.CgoFiles...) {
				f, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
				if err != nil {
					out[i].problems = append(out[i].problems, err.Error())
				}
				out[i].files = append(out[i].files, f)
			}
		})
	}
	wg.Wait()
	return out
}

// one checks one package. Of packages that are not ours only the declarations matter.
func (c *checker) one(p listed, src sources) []string {
	problems := src.problems
	conf := types.Config{
		Importer: &importer{c.done, p.ImportMap}, FakeImportC: true, IgnoreFuncBodies: p.DepOnly, Sizes: types.SizesFor("gc", goarch),
		Error: func(err error) { problems = append(problems, err.Error()) },
	}
	pkg, err := conf.Check(p.ImportPath, c.fset, src.files, nil)
	if err != nil && len(problems) == 0 {
		problems = append(problems, err.Error())
	}
	c.done[p.ImportPath] = pkg
	return problems
}

// importer finds packages that were checked before.
type importer struct {
	done    map[string]*types.Package
	renamed map[string]string
}

// Import returns the package that an import path stands for.
func (i *importer) Import(path string) (*types.Package, error) {
	if to, ok := i.renamed[path]; ok {
		path = to
	}
	if pkg := i.done[path]; pkg != nil {
		return pkg, nil
	}
	return nil, fmt.Errorf("package %s is not there", path)
}
