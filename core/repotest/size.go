package repotest

import (
	"fmt"
	"go/ast"
)

// The limits of design section 3.
const (
	// MaxFileLines is for one file.
	MaxFileLines = 500
	// MaxFuncLines is for one function, first line to last, tables (composite literals over several lines) not counted.
	MaxFuncLines = 60
	// MaxMethods is for what one interface names itself; embedding is how a larger one is made.
	MaxMethods = 5
)

// Sizes checks the lengths of files and functions.
func Sizes(files []*File) []Finding {
	var out []Finding
	for _, f := range files {
		if f.Lines > MaxFileLines {
			out = append(out, Finding{f.Path, fmt.Sprintf("%d lines; the limit is %d: split it", f.Lines, MaxFileLines)})
		}
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := f.funcLines(fn); n > MaxFuncLines {
				out = append(out, Finding{
					f.at(fn.Pos()), fmt.Sprintf("func %s has %d lines without its tables; the limit is %d: split it", fn.Name.Name, n, MaxFuncLines),
				})
			}
		}
	}
	return out
}

// funcLines counts the lines of a function without the inner lines of its outermost composite literals that hold no function.
func (f *File) funcLines(fn *ast.FuncDecl) int {
	total := f.span(fn)
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || holdsFunc(lit) {
			return true
		}
		if n := f.span(lit) - 2; n > 0 {
			total -= n
		}
		return false
	})
	return total
}

func (f *File) span(n ast.Node) int {
	return f.fset.Position(n.End()).Line - f.fset.Position(n.Pos()).Line + 1
}

// holdsFunc reports whether a literal contains code: then it is no table, and its lines count.
func holdsFunc(lit *ast.CompositeLit) bool {
	found := false
	ast.Inspect(lit, func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			found = true
		}
		return !found
	})
	return found
}

// Interfaces checks that every interface is small.
func Interfaces(files []*File) []Finding {
	var out []Finding
	for _, f := range files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if t, ok := spec.Type.(*ast.InterfaceType); ok {
				if n := ownMethods(t); n > MaxMethods {
					out = append(out, Finding{
						f.at(spec.Pos()), fmt.Sprintf("interface %s has %d methods; the limit is %d: split it and embed the parts", spec.Name.Name, n, MaxMethods),
					})
				}
			}
			return true
		})
	}
	return out
}

// ownMethods counts the methods an interface names itself. Embedding is how a large one is made of small ones, so
// embedded interfaces are not counted.
func ownMethods(t *ast.InterfaceType) int {
	n := 0
	for _, m := range t.Methods.List {
		if _, ok := m.Type.(*ast.FuncType); ok {
			n += len(m.Names)
		}
	}
	return n
}
