// Package repotest holds the rules of this repository as functions over its source, and as tests that apply them: which
// layer may import which, how long a file or function may be, that every exported name is documented, and which words
// never appear. Nothing imports it.
package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Finding is one breach of a rule.
type Finding struct {
	// Where is a file with a line, or a package.
	Where string
	// What says what is wrong and what to do about it.
	What string
}

// String joins both.
func (f Finding) String() string { return f.Where + ": " + f.What }

// File is one parsed Go file.
type File struct {
	// Path is relative to the root that was read, with slashes.
	Path string
	// Lines counts its lines.
	Lines int
	// Test says that it is a _test.go file.
	Test bool

	fset *token.FileSet
	ast  *ast.File
}

// at is the position of a node as "path:line".
func (f *File) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", f.Path, f.fset.Position(pos).Line)
}

// skipDir names directories that hold no source of ours.
func skipDir(name string) bool {
	switch name {
	case ".git", "testdata", "node_modules", "dist", ".task":
		return true
	}
	return false
}

// Walk calls fn with each regular file of the tree under root (path relative to root), leaving out build output, fixtures and what others wrote.
func Walk(root string, fn func(path string) error) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && skipDir(d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return fn(filepath.ToSlash(rel))
	})
	if err != nil {
		return fmt.Errorf("walk the tree: %w", err)
	}
	return nil
}

// ReadGo parses every Go file under root, leaving out generated ones.
func ReadGo(root string) ([]*File, error) {
	var files []*File
	err := Walk(root, func(path string) error {
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parse(root, path)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(f.ast) {
			files = append(files, f)
		}
		return nil
	})
	return files, err
}

func parse(root, path string) (*File, error) {
	src, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse source: %w", err)
	}
	return &File{
		Path: path, Lines: strings.Count(string(src), "\n"), Test: strings.HasSuffix(path, "_test.go"), fset: fset, ast: tree,
	}, nil
}
