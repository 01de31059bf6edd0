package policy

import (
	"embed"
	"io/fs"
	"path"
	"slices"
	"strings"

	"capsem/core/fault"
)

//go:embed presets/*.toml
var presetFiles embed.FS

// Levels are the presets that set a general stance, the strictest last. The others open one service each.
var Levels = []string{"medium", "high"}

// Presets lists the names of the rules that capsem ships.
func Presets() []string {
	files, err := fs.Glob(presetFiles, "presets/*.toml")
	if err != nil {
		return nil
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(path.Base(f), ".toml")
	}
	return files
}

// PresetText is a preset as it is written, for showing.
func PresetText(name string) (string, error) {
	if !slices.Contains(Presets(), name) {
		return "", fault.New(fault.NotFound, "there is no preset %.40q", name).WithHint("there are: %s", strings.Join(Presets(), ", "))
	}
	data, err := presetFiles.ReadFile("presets/" + name + ".toml")
	if err != nil {
		return "", fault.Wrap(err, fault.Internal, "read preset")
	}
	return string(data), nil
}

// Preset reads one for a layer.
func Preset(name string, layer Layer) (*Set, error) {
	data, err := PresetText(name)
	if err != nil {
		return nil, err
	}
	s, err := Parse(data, layer)
	if err != nil {
		return nil, err
	}
	for i := range s.Rules {
		s.Rules[i].line = 0 // a line of a file that the user never sees
	}
	for i := range s.Git {
		s.Git[i].line = 0
	}
	return s, nil
}
