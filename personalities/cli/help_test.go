package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"capsem/core/config"
	"capsem/core/paths"
)

// all calls do for each command and sub-command.
func all(commands []*cli.Command, path string, do func(path string, c *cli.Command)) {
	for _, c := range commands {
		name := strings.TrimSpace(path + " " + c.Name)
		do(name, c)
		all(c.Subcommands, name, do)
	}
}

func TestHelpNamesEveryCommandAndEveryValueAsItIsWritten(t *testing.T) {
	all((&session{}).commands(), "", func(path string, c *cli.Command) {
		if got := pathOf(c); got != path {
			t.Errorf("%s is called %q", path, got)
		}
		for _, f := range c.Flags {
			usage := ""
			if d, ok := f.(cli.DocGenerationFlag); ok {
				usage = d.GetUsage()
			}
			if v, ok := f.(cli.VisibleFlag); ok && v.IsVisible() && !isBool(f) && strings.Count(usage, "`") != 2 {
				t.Errorf("%s %s: the help does not say what its value is: %q", path, flagNames(f), usage)
			}
		}
	})
}

func TestHelpOfCommandsSaysWhatUsersAskFor(t *testing.T) {
	f := newService(t)
	if err := os.WriteFile(f.home.UserConfig(), []byte("[vm.resources]\ncpu_count = 3\nram_mb = 1536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"run":               {"--ram SIZE", "256-16384 MB", "1-8", "3 CPUs, 1.5 GB of RAM and 16 GB", "1G is 1024M", "124", "125", "-i=false: never", "-t=false: never"},
		"exec":              {"124", "125", "126 and 127", "-i=false: never"},
		"create":            {"--cpu, --cpus N", "1-128 GB"},
		"templates rebuild": {"--ram SIZE", "3 CPUs"},
		"shell":             {"Ctrl-] leaves", "comes back to the same", "capsem persist VM NAME"},
		"cp":                {"Setuid", "Owners", "times", "symbolic link", "Hard links", "Named pipes", "parent directory must", "umask", "-r, -R, --recursive", "-a, --archive"},
		"jobs":              {"the exit code is the job's", "124"},
		"help":              {"settings"},
		"list":              {"-a, --all"},
		"logs":              {"--json has the text as it was"},
	} {
		r := f.capsem(nil, append([]string{"help"}, strings.Fields(line)...)...)
		for _, text := range want {
			if r.code != 0 || !strings.Contains(r.stdout, text) {
				t.Errorf("help %s does not say %q:\n%s", line, text, r.stdout)
			}
		}
		if strings.Contains(r.stdout, "VALUE") || strings.Contains(r.stdout, "rootfs") {
			t.Errorf("help %s:\n%s", line, r.stdout)
		}
	}
}

func TestHelpSettingsListsEverySettingAndWhereTheyAre(t *testing.T) {
	f := newService(t)
	list, err := config.Describe()
	if err != nil {
		t.Fatal(err)
	}
	r := f.capsem(nil, "help", "settings")
	want := []string{f.home.UserConfig(), paths.CorpConfig(), "vm.resources.cpu_count = 2\n  number, 1 to 8\n  "}
	for _, s := range list {
		want = append(want, s.Key+" = "+s.Default+"\n  "+s.Type+"\n  "+s.Meaning+"\n")
	}
	for _, text := range want {
		if r.code != 0 || !strings.Contains(r.stdout, text) {
			t.Errorf("%q is missing in\n%s", text, r.stdout)
		}
	}
	f.wantCalls()
}

func TestWordsOfOtherToolsAreAnsweredWithOurs(t *testing.T) {
	commands := (&session{}).commands()
	for word, ours := range dockerWords {
		if findCommand(commands, word) != nil {
			t.Errorf("%s is a command of ours", word)
		}
		name := strings.Fields(ours)[1]
		if name = strings.Trim(name, ","); findCommand(commands, name) == nil {
			t.Errorf("%s: there is no command %s", word, name)
		}
	}
}
