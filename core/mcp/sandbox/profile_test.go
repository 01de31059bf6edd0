package sandbox

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func same(path string) []string { return []string{path} }

// rules are those of a profile, with the paths in the place of their names.
func rules(p *profile) []string {
	text := p.text.String()
	for _, param := range p.params {
		name, path, _ := strings.Cut(param, "=")
		text = strings.ReplaceAll(text, `(param "`+name+`")`, "<"+path+">")
	}
	return strings.Split(strings.TrimSpace(text), "\n")
}

// about are the rules for an operation.
func about(p *profile, operation string) (out []string) {
	for _, r := range rules(p) {
		if regexp.MustCompile(`^\(allow [^(]*` + operation).MatchString(r) {
			out = append(out, r)
		}
	}
	return out
}

func TestProfilesForMacOpenOnlyWhatIsAsked(t *testing.T) {
	program := &Program{Path: "/opt/tool/bin/server", Dir: "/Users/me/.capsem/mcp/x", Read: []string{"/Users/me/notes"}, Write: []string{"/Users/me/out"}}
	network := *program
	network.Network = true
	for name, c := range map[string]struct {
		p                       *profile
		writes, network, unix   int
		reads, forks, execsOnly []string
	}{
		"aggregator": {p: profileOf(NetworkOnly, "/opt/capsem"), network: 1, reads: append([]string{"/opt/capsem"}, trustOfMac...)},
		"built-in":   {p: profileOf(Nothing, "/opt/capsem"), reads: []string{"/opt/capsem"}},
		"program": {
			p: profileFor(program, same), writes: 3, forks: []string{"(allow process-fork)"},
			reads: slices.Concat(systemOfMac, []string{program.Path}, program.Read, []string{program.Dir}, program.Write),
		},
		"program with a network": {
			p: profileFor(&network, same), writes: 3, network: 3, unix: 1, forks: []string{"(allow process-fork)"},
			reads: slices.Concat(systemOfMac, []string{program.Path}, program.Read, []string{program.Dir}, program.Write, trustOfMac),
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := rules(c.p)
			if all[0] != "(version 1)" || all[1] != "(deny default)" || strings.Contains(c.p.text.String(), "(allow default)") {
				t.Errorf("it begins with %q", all[:2])
			}
			for _, r := range all {
				if strings.Count(r, "(") != strings.Count(r, ")") || !strings.HasPrefix(r, "(") {
					t.Errorf("no rule: %s", r)
				}
			}
			var reads []string
			for _, r := range about(c.p, `file-read\*`) {
				if _, path, ok := strings.Cut(r, "(subpath <"); ok {
					reads = append(reads, strings.TrimSuffix(path, ">))"))
				}
			}
			if !slices.Equal(reads, c.reads) {
				t.Errorf("it reads %q", reads)
			}
			if got := about(c.p, "file-write"); len(got) != c.writes {
				t.Errorf("it writes %q", got)
			}
			if got := about(c.p, "network-"); len(got) != c.network || strings.Count(strings.Join(got, ""), "literal") != c.unix {
				t.Errorf("it connects %q", got)
			}
			if got := about(c.p, "process-fork"); !slices.Equal(got, c.forks) {
				t.Errorf("it starts %q", got)
			}
		})
	}
}

func TestNoPathIsReadAsPartOfAProfile(t *testing.T) {
	evil := `/Users/me/a") (allow default) ("`
	p := profileFor(&Program{Path: evil + "1", Dir: evil + "2", Read: []string{evil + "3"}, Write: []string{evil + "4"}}, func(path string) []string { return []string{path, path + "real"} })
	args := p.command("/bin/server", "--flag")
	if strings.Contains(args[2], "evil") || strings.Contains(args[2], "allow default") || strings.Contains(args[2], "/Users") {
		t.Errorf("the profile has a path in it: %s", args[2])
	}
	if args[0] != macSandbox || args[1] != "-p" || !slices.Equal(args[len(args)-3:], []string{"--", "/bin/server", "--flag"}) {
		t.Errorf("the command is %q", args[:2])
	}
	if !slices.Contains(args, "P0="+systemOfMac[0]) || !slices.ContainsFunc(args, func(a string) bool { return strings.HasSuffix(a, "="+evil+"3real") }) {
		t.Errorf("paths are missing: %q", args[3:])
	}
}
