package repotest

import "go/ast"

// NoInit checks that no package of ours does work when it is linked: every personality links everything, so an init
// function runs in all of them, before main can choose.
func NoInit(files []*File) []Finding {
	var out []Finding
	for _, f := range files {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, Finding{f.at(fn.Pos()), "func init runs in every personality: do the work where it is needed"})
			}
		}
	}
	return out
}
