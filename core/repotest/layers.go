package repotest

import (
	"fmt"
	"slices"
	"strings"
)

// Package is what the layer rules need to know of one package, as "go list -json" prints it.
type Package struct {
	ImportPath string
	Standard   bool
	// Imports are direct, Deps transitive. CgoFiles is empty for a package without cgo.
	Imports  []string
	Deps     []string
	CgoFiles []string
}

// module is the import path of this repository.
const module = "capsem"

// layer is one row of the table in design section 3.
type layer struct {
	level int
	// siblings says that packages of this level may import each other (Go itself refuses circles).
	siblings bool
	// paths are import paths below the module; each stands for everything under it too.
	paths []string
}

// layers is the table. The longest matching path decides.
var layers = []layer{
	{0, true, []string{
		"core/api", "core/proto", "core/paths", "core/fault", "core/lifecycle", "core/policy", "core/entry", "core/buildinfo",
		"core/share/wire", "assets", "web",
	}},
	{1, true, []string{
		"core/config", "core/store", "core/assets", "core/image", "core/hypervisor", "core/link", "core/share", "core/snapshot",
		"core/mitm", "core/inspect", "core/dns", "core/approval", "core/credential", "core/ledger", "core/mcp", "core/guard", "core/safesocket", "core/atomicfile",
		"core/guestlink", "core/guest", "core/workerclient", "core/template", "core/checkpoint", "core/tree",
		"core/budget", "core/export", "core/detect",
	}},
	{2, false, []string{"core/machine", "core/service"}},
	{3, false, []string{"core/localapi", "core/client", "core/gateway"}},
	// The tools of capsem mcp stand on the client.
	{3, true, []string{"core/mcptools"}},
	{4, false, []string{
		"personalities/cli", "personalities/service", "personalities/process", "personalities/mcp", "personalities/mcpaggregator",
		"personalities/mcpbuiltin", "personalities/gateway", "personalities/tray", "guestagent",
	}},
	{5, false, []string{"personalities"}},
	{6, false, []string{""}},
	// Tools of the repository: they may import anything, nothing imports them.
	{7, false, []string{".ci", "core/repotest"}},
}

// place finds the row and the path of the table that a package of ours belongs to.
func place(importPath string) (row layer, under string, ok bool) {
	rel, ours := inModule(importPath)
	if !ours {
		return layer{}, "", false
	}
	for _, l := range layers {
		for _, p := range l.paths {
			if within(rel, p) && (!ok || len(p) > len(under)) {
				row, under, ok = l, p, true
			}
		}
	}
	return row, under, ok
}

func inModule(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func within(rel, prefix string) bool {
	return rel == prefix || (prefix != "" && strings.HasPrefix(rel, prefix+"/"))
}

// Layers checks every import between packages of ours against the table.
func Layers(pkgs []Package) []Finding {
	var out []Finding
	for _, p := range pkgs {
		from, fromPath, ok := place(p.ImportPath)
		if _, ours := inModule(p.ImportPath); !ours {
			continue
		}
		if !ok {
			out = append(out, Finding{p.ImportPath, "is in no layer: put it into the table in core/repotest/layers.go"})
			continue
		}
		for _, imp := range p.Imports {
			to, toPath, ok := place(imp)
			if !ok || fromPath == toPath || to.level < from.level || (to.level == from.level && from.siblings) {
				continue
			}
			out = append(out, Finding{
				p.ImportPath, fmt.Sprintf("(layer %d) imports %s (layer %d): an arrow only points down", from.level, imp, to.level),
			})
		}
	}
	return out
}

// never lists what may not be linked into a package, however indirectly.
var never = []struct {
	from, dep, why string
}{
	{"core/service", "core/machine", "the service talks to workers, it never runs a VM itself"},
	{"core/service", "core/hypervisor", "the service talks to workers, it never runs a VM itself"},
	{"core/localapi", "core/hypervisor", "the service talks to workers, it never runs a VM itself"},
	{"core/client", "core/hypervisor", "a client only speaks HTTP"},
	{"core/client", "core/service", "a client only speaks HTTP"},
}

// Never checks the table above, that programs do not link test code, and that what runs in the guest stays small and free of cgo.
func Never(pkgs []Package) []Finding {
	byPath := map[string]Package{}
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	var out []Finding
	for _, p := range pkgs {
		rel, ours := inModule(p.ImportPath)
		if !ours {
			continue
		}
		for _, n := range never {
			if i := slices.IndexFunc(p.Deps, func(d string) bool { r, ok := inModule(d); return ok && within(r, n.dep) }); i >= 0 && within(rel, n.from) {
				out = append(out, Finding{p.ImportPath, fmt.Sprintf("depends on %s: %s", p.Deps[i], n.why)})
			}
		}
		if (rel == "" || rel == "guestagent") && slices.Contains(p.Deps, "testing") {
			out = append(out, Finding{p.ImportPath, "links package testing: keep test helpers out of programs"})
		}
		if within(rel, "guestagent") || within(rel, "core/guest") {
			out = append(out, guestRules(p, byPath)...)
		}
	}
	return out
}

// guestRules holds a package that runs in the guest to layer 0, core/link and core/guest, and to pure Go.
func guestRules(p Package, byPath map[string]Package) []Finding {
	var out []Finding
	for _, dep := range append([]string{p.ImportPath}, p.Deps...) {
		d := byPath[dep]
		if len(d.CgoFiles) > 0 && !d.Standard {
			out = append(out, Finding{p.ImportPath, "depends on " + dep + ", which uses cgo: the guest's binary is pure Go"})
		}
		rel, ours := inModule(dep)
		if !ours || within(rel, "guestagent") || within(rel, "core/guest") || within(rel, "core/link") {
			continue
		}
		if l, _, ok := place(dep); !ok || l.level != 0 {
			out = append(out, Finding{p.ImportPath, "depends on " + dep + ": only layer 0, core/link and core/guest run in the guest"})
		}
	}
	return out
}
