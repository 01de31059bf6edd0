package build

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	embedded "capsem/assets"
	"capsem/core/assets"
	"capsem/core/fault"
)

// Recipe says what is in an image.
type Recipe struct {
	Description string `toml:"description"`
	// Extends names a recipe whose content comes first.
	Extends string `toml:"extends"`
	// Packages are Debian's.
	Packages []string `toml:"packages"`
	// Environment is what every process of the guest gets, unless it says otherwise; it is written to /etc/environment.
	Environment map[string]string `toml:"environment"`
	Files       []RecipeFile      `toml:"file"`
	Users       []User            `toml:"user"`
	Kernel      Kernel            `toml:"kernel"`
	NPM         NPM               `toml:"npm"`
}

// RecipeFile is one file of ours in the image.
type RecipeFile struct {
	// Path is absolute; Source a name under assets/recipes/files; Mode octal.
	Path   string `toml:"path"`
	Source string `toml:"source"`
	Mode   string `toml:"mode"`
}

// User is an account besides root.
type User struct {
	Name  string `toml:"name"`
	UID   int    `toml:"uid"`
	Shell string `toml:"shell"`
}

// Kernel is Debian's kernel package, without the architecture at its end, and the modules that the guest loads.
type Kernel struct {
	Package string   `toml:"package"`
	Modules []string `toml:"modules"`
}

// NPM is programs from the npm registry.
type NPM struct {
	// Prefix is the directory they are installed in; Programs get a link in its bin.
	Prefix   string   `toml:"prefix"`
	Packages []string `toml:"packages"`
	Scripts  []string `toml:"scripts"`
	Programs []string `toml:"programs"`
}

var (
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,100}$`)
	npmName     = regexp.MustCompile(`^(@[a-z0-9-]+/)?[a-z0-9][a-z0-9._-]{0,100}$`)
	wordName    = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,100}$`)
)

// LoadRecipe reads an embedded recipe with what it extends.
func LoadRecipe(profile string) (*Recipe, error) { return loadRecipe(profile, 0) }

func loadRecipe(profile string, depth int) (*Recipe, error) {
	if depth > 8 {
		return nil, errors.New("read recipe: recipes extend one another in a circle")
	}
	text, err := embedded.Recipe(profile)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	r, err := parseRecipe(profile, text)
	if err != nil || r.Extends == "" {
		return r, err
	}
	base, err := loadRecipe(r.Extends, depth+1)
	if err != nil {
		return nil, err
	}
	return base.extend(r), nil
}

func parseRecipe(profile string, text []byte) (*Recipe, error) {
	var r Recipe
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&r)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
		line, _ := unknown.Errors[0].Position()
		return nil, fault.New(fault.Invalid, "recipe %s, line %d: unknown key %q", profile, line, strings.Join(unknown.Errors[0].Key(), "."))
	}
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := wrong.Position()
		return nil, fault.Wrap(err, fault.Invalid, "recipe %s, line %d: %.200s", profile, line, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "recipe %s: %s", profile, err)
	}
	return &r, nil
}

// check refuses what could be taken for something else by the tools that get it.
func (r *Recipe) check() error {
	for _, p := range r.Packages {
		if !packageName.MatchString(p) {
			return fmt.Errorf("package name %.40q is malformed", p)
		}
	}
	for _, p := range slices.Concat(r.NPM.Packages, r.NPM.Scripts) {
		if !npmName.MatchString(p) {
			return fmt.Errorf("npm package name %.40q is malformed", p)
		}
	}
	for k, v := range r.Environment {
		if !envName.MatchString(k) || strings.ContainsAny(v, "\n\x00") {
			return fmt.Errorf("environment variable %.40q is malformed", k)
		}
	}
	for _, f := range r.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Source == "" || path.Base(f.Source) != f.Source {
			return fmt.Errorf("file %.80q is malformed", f.Path)
		}
		if _, err := f.mode(); err != nil {
			return err
		}
	}
	for _, u := range r.Users {
		if !wordName.MatchString(u.Name) || u.UID < 1000 || u.UID > 60000 || !path.IsAbs(u.Shell) {
			return fmt.Errorf("user %.40q is malformed", u.Name)
		}
	}
	for _, m := range slices.Concat(r.Kernel.Modules, r.NPM.Programs) {
		if !wordName.MatchString(m) {
			return fmt.Errorf("name %.40q is malformed", m)
		}
	}
	if r.NPM.Prefix != "" && (!path.IsAbs(r.NPM.Prefix) || path.Clean(r.NPM.Prefix) != r.NPM.Prefix) {
		return fmt.Errorf("npm prefix %.80q is malformed", r.NPM.Prefix)
	}
	return nil
}

func (f RecipeFile) mode() (int64, error) {
	m, err := strconv.ParseInt(f.Mode, 8, 32)
	if err != nil || m < 0 || m > 0o777 {
		return 0, fmt.Errorf("mode %.20q of %s is malformed", f.Mode, f.Path)
	}
	return m, nil
}

// extend puts what more says over the recipe.
func (r *Recipe) extend(more *Recipe) *Recipe {
	out := *r
	out.Description, out.Extends = more.Description, ""
	out.Packages = slices.Concat(r.Packages, more.Packages)
	out.Environment = map[string]string{}
	maps.Copy(out.Environment, r.Environment)
	maps.Copy(out.Environment, more.Environment)
	out.Users = slices.Concat(r.Users, more.Users)
	out.Files = slices.DeleteFunc(slices.Clone(r.Files), func(f RecipeFile) bool {
		return slices.ContainsFunc(more.Files, func(m RecipeFile) bool { return m.Path == f.Path })
	})
	out.Files = append(out.Files, more.Files...)
	if more.Kernel.Package != "" {
		out.Kernel = more.Kernel
	}
	if more.NPM.Prefix != "" {
		out.NPM = more.NPM
	}
	return &out
}

// hash tells recipes apart, with the content of their files.
func (r *Recipe) hash() (string, error) {
	text, err := toml.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("hash recipe: %w", err)
	}
	for _, f := range r.Files {
		content, err := embedded.RecipeFile(f.Source)
		if err != nil {
			return "", err //nolint:wrapcheck // says what it did
		}
		text = append(append(text, 0), content...)
	}
	return assets.Hash(text), nil
}
