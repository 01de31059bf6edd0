package repotest

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
)

// Documented checks that every exported name has a comment. Of a group of constants, variables or types the comment of the
// group is enough. Methods count when their type is exported.
func Documented(files []*File) []Finding {
	var out []Finding
	for _, f := range files {
		if f.Test || f.ast.Name.Name == "main" {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc.Text() == "" && d.Name.IsExported() && exportedReceiver(d) {
					out = append(out, Finding{f.at(d.Pos()), "exported func " + d.Name.Name + " has no comment"})
				}
			case *ast.GenDecl:
				out = append(out, f.undocumented(d)...)
			}
		}
	}
	return out
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func (f *File) undocumented(d *ast.GenDecl) []Finding {
	if d.Doc.Text() != "" {
		return nil
	}
	var out []Finding
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc.Text() == "" {
				out = append(out, Finding{f.at(s.Pos()), "exported type " + s.Name.Name + " has no comment"})
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && s.Doc.Text() == "" {
					out = append(out, Finding{f.at(name.Pos()), "exported " + d.Tok.String() + " " + name.Name + " has no comment"})
				}
			}
		}
	}
	return out
}

// PackageComments checks that each package has exactly one package comment, "Package name ..." ("Command name ..." or any
// sentence for a program). Test files count only for packages that have nothing else.
func PackageComments(files []*File) []Finding {
	type pkg struct{ with, without []*File }
	pkgs := map[string]*pkg{}
	code := map[string]bool{}
	for _, f := range files {
		code[path.Dir(f.Path)] = code[path.Dir(f.Path)] || !f.Test
	}
	for _, f := range files {
		dir := path.Dir(f.Path)
		if f.Test && code[dir] {
			continue
		}
		if pkgs[dir] == nil {
			pkgs[dir] = &pkg{}
		}
		if f.ast.Doc.Text() == "" {
			pkgs[dir].without = append(pkgs[dir].without, f)
		} else {
			pkgs[dir].with = append(pkgs[dir].with, f)
		}
	}
	var out []Finding
	for _, dir := range slices.Sorted(maps.Keys(pkgs)) {
		switch p := pkgs[dir]; {
		case len(p.with) == 0:
			out = append(out, Finding{dir, "no package comment"})
		case len(p.with) > 1 && !oneEachOS(p.with):
			out = append(out, Finding{dir, fmt.Sprintf("%d package comments, in %s and %s: keep one", len(p.with), p.with[0].Path, p.with[1].Path)})
		case p.with[0].ast.Name.Name != "main" && !strings.HasPrefix(p.with[0].ast.Doc.Text(), "Package "+p.with[0].ast.Name.Name+" "):
			out = append(out, Finding{p.with[0].Path, `the package comment does not begin with "Package ` + p.with[0].ast.Name.Name + ` "`})
		}
	}
	return out
}

// oneEachOS reports whether every file is for one operating system only, so that a build sees one of the comments.
func oneEachOS(files []*File) bool {
	seen := map[string]bool{}
	for _, f := range files {
		base := strings.TrimSuffix(path.Base(f.Path), ".go")
		os := base[strings.LastIndexByte(base, '_')+1:]
		if seen[os] || (os != "linux" && os != "darwin" && os != "other") {
			return false
		}
		seen[os] = true
	}
	return true
}
