package cli

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"capsem/core/fault"
)

func TestFlagsMayStandAnywhereButInTheGuestsWords(t *testing.T) {
	commands := (&session{}).commands()
	for line, want := range map[string]string{
		"exec dev -t ls":                  "exec -t -- dev ls",
		"exec dev -it -w /tmp -- tar x":   "exec -i -t -w /tmp -- dev tar x !",
		"exec -i dev cat":                 "exec -i -- dev cat",
		"exec dev ls -l --json":           "exec -- dev ls -l --json",
		"exec dev -- -x":                  "exec -- dev -x !",
		"exec dev --timeout=5 true":       "exec --timeout=5 -- dev true",
		"run -t -- cmd -t":                "run -t -- cmd -t !",
		"run -t=false ls -l":              "run -t=false -- ls -l",
		"run --ram 2G -e A=-1 env":        "run --ram 2G -e A=-1 -- env",
		"run - x":                         "run -- - x",
		"run list":                        "run -- list",
		"list -q":                         "list -q --",
		"logs dev --tail 3 -f":            "logs --tail 3 -f -- dev",
		"delete a -- -b":                  "delete -- a -b !",
		"cp - dev:/x":                     "cp -- - dev:/x",
		"service status --json":           "service status --json --",
		"service":                         "service",
		"__complete exec --t":             "__complete exec --t",
		"lsit -q":                         "lsit -q",
		"run --tyt x":                     "? did you mean --tty?",
		"run -xt ls":                      "? did you mean -t?",
		"exec dev -w":                     "? see capsem help exec",
		"list --no-such-thing-whatsoever": "? see capsem help list",
	} {
		a, err := arrange(commands, strings.Fields(line))
		got := strings.Join(a.words, " ")
		if a.dashed {
			got += " !"
		}
		if err != nil {
			_, _, hint := fault.Public(err)
			got = "? " + hint
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestHelpIsFoundWhereverItIsAskedFor(t *testing.T) {
	commands := (&session{}).commands()
	for line, want := range map[string]bool{
		"": true, "-h": true, "--help": true, "run --help": true, "exec dev -h": true, "exec dev ls -h": false, "run -- -h": false, "service start -h": true,
	} {
		a, err := arrange(commands, strings.Fields(line))
		if err != nil || a.help != want {
			t.Errorf("%q: help %v, %v, want %v", line, a.help, err, want)
		}
	}
}

func TestTheHelpPageFitsAScreenAndNamesEveryCommand(t *testing.T) {
	f := newService(t)
	page := f.capsem(nil, "help")
	if page.code != 0 || page.stderr != "" {
		t.Fatalf("help: %+v", page)
	}
	lines := strings.Split(strings.TrimSuffix(page.stdout, "\n"), "\n")
	if len(lines) > 23 {
		t.Errorf("%d lines do not fit a screen of 24 with a prompt", len(lines))
	}
	for _, line := range lines {
		if utf8.RuneCountInString(line) > 79 {
			t.Errorf("too wide: %q", line)
		}
	}
	words := strings.Fields(page.stdout)
	for _, c := range (&session{}).commands() {
		if !c.Hidden && !slices.Contains(words, c.Name) {
			t.Errorf("%s is not on the page", c.Name)
		}
		if c.Hidden {
			continue
		}
		one := f.capsem(nil, "help", c.Name)
		if one.code != 0 || !strings.HasPrefix(one.stdout, "Usage: capsem "+c.Name) || c.Description == "" {
			t.Errorf("help %s: %+v", c.Name, one)
		}
		if again := f.capsem(nil, c.Name, "--help"); again != one {
			t.Errorf("%s --help is not help %s: %+v", c.Name, c.Name, again)
		}
	}
	if sub := f.capsem(nil, "help", "service", "stop"); !strings.Contains(sub.stdout, "VMs keep running") {
		t.Errorf("help service stop: %+v", sub)
	}
	f.wantCalls()
}

func TestAWrongWordIsOneLineWithTheNearestRightOne(t *testing.T) {
	f := newService(t)
	for line, want := range map[string]string{
		"lsit":                  `capsem: there is no command "lsit"; did you mean capsem list?`,
		"exce dev true":         `capsem: there is no command "exce"; did you mean capsem exec?`,
		"Delete":                `capsem: there is no command "Delete"; did you mean capsem delete?`,
		"dele":                  `capsem: there is no command "dele"; did you mean capsem delete?`,
		"zzz":                   `capsem: there is no command "zzz"; see capsem help`,
		"service strt":          `capsem: there is no command "service strt"; did you mean capsem service start?`,
		"help lits":             `capsem: there is no command "lits"; did you mean capsem list?`,
		"list --jsn":            "capsem: capsem list has no flag --jsn; did you mean --json?",
		"info":                  "capsem: capsem info: too few arguments; usage: capsem info VM [--json]",
		"info a b":              "capsem: capsem info: too many arguments; usage: capsem info VM [--json]",
		"create --cpu many":     `capsem: capsem create: "many" is no value for --cpu; see capsem help create`,
		"create -cpus=two":      `capsem: capsem create: "two" is no value for -cpus; see capsem help create`,
		"list -q=maybe":         `capsem: capsem list: "maybe" is no value for -q; see capsem help list`,
		"--foo":                 "capsem: capsem has no flag --foo; see capsem help",
		"--foo=bar list":        "capsem: capsem has no flag --foo; see capsem help",
		"assets build x":        "capsem: capsem assets build: too many arguments; usage: capsem assets build [--profile dev|minimal] [--arch amd64|arm64] [--locked]",
		"assets build --lcoked": "capsem: capsem assets build has no flag --lcoked; did you mean --locked?",
		"assets build --arch":   "capsem: capsem assets build: --arch needs a value; see capsem help assets build",
		"templates list --zzzz": "capsem: capsem templates list has no flag --zzzz; see capsem help templates list",
		"templates list 1":      "capsem: capsem templates list: too many arguments; usage: capsem templates list [--json]",
		"create -n=":            "capsem: the VM's name is empty; give -n a name, or leave it out",
		"shell --name=":         "capsem: the VM's name is empty; give -n a name, or leave it out",
		"start dev":             `capsem: there is no command "start"; capsem's is: capsem resume VM (a new one: capsem create)`,
		"help ps":               `capsem: there is no command "ps"; capsem's is: capsem list (the processes in a VM: capsem exec VM 'ps aux')`,
		"service ps":            `capsem: there is no command "service ps"; see capsem help`,
		"create --cpu 9":        "capsem: 9 CPUs is outside 1-8",
		"create --cpu 0":        "capsem: 0 CPUs is outside 1-8",
		"create --ram 2048":     "capsem: --ram 2048 has no unit; write 2048M for megabytes or 2048G for gigabytes",
		"create --ram 100M":     "capsem: 100 MB of RAM is outside 256-16384",
		"create -n a/b":         `capsem: "a/b" is not a VM name; use 1-64 letters, digits, - or _, beginning with a letter or digit`,
		"persist x .":           `capsem: "." is not a VM name; use 1-64 letters, digits, - or _, beginning with a letter or digit`,
		"completions tcsh":      "capsem: no completions for \"tcsh\"; choose bash, zsh or fish",
		"logs x --tail 0":       "capsem: --tail 0 is not a number of lines; give 1 or more",
		"jobs x --wait":         "capsem: name the job; capsem jobs x lists them",
		"cp a b":                "capsem: cp copies between this machine and a VM; write one side as VM:PATH; a local name with a colon as ./NAME",
		"cp a:x b:y": "capsem: cp copies between this machine and a VM, not from VM to VM; capsem cp a:x - | capsem cp - b:y; " +
			"a directory: capsem exec a -- tar c -C DIR . | capsem exec b -- tar x -C DIR",
		"cp /dev/null v:x":      "capsem: /dev/null is a device, and cp copies files and directories; to copy what it gives: capsem cp - VM:PATH < /dev/null",
		"cp /nowhere/at-all v:": "capsem: cannot read /nowhere/at-all: no such file or directory",
		"shell":                 "capsem: capsem shell needs a terminal; use capsem exec VM 'COMMAND' or capsem run 'COMMAND'",
		"forward v 0":           `capsem: "0" is not a port to forward; write GUESTPORT or HOSTPORT:GUESTPORT, such as 3000:8080`,
		"forward v 1:2:3:4":     `capsem: "1:2:3:4" is not a port to forward; write GUESTPORT or HOSTPORT:GUESTPORT, such as 3000:8080`,
		"forward v 0.0.0.0:1:2": `capsem: ports are forwarded to this machine only, not to "0.0.0.0"; write 1:2`,
	} {
		r := f.capsem(nil, strings.Fields(line)...)
		if r.code != fault.ExitFailure || r.stdout != "" || r.stderr != want+"\n" {
			t.Errorf("%s: code %d, stdout %q\n got %swant %s", line, r.code, r.stdout, r.stderr, want)
		}
	}
	f.wantCalls() // a mistake is told before the service is asked
}

func TestAnEmptyNameOfAVMIsNoName(t *testing.T) {
	f := newService(t)
	for _, line := range []string{
		"info ''", "resume --cold ''", "stop a ''", "delete ''", "logs ''", "jobs ''", "forward '' 80", "exec '' true", "shell ''", "persist '' x",
		"suspend ''", "create -n ''", "shell -n ''",
	} {
		args := strings.Fields(line)
		for i := range args {
			args[i] = strings.Trim(args[i], "'")
		}
		if r := f.capsem(nil, args...); r.code == 0 || !strings.HasPrefix(r.stderr, "capsem: the VM's name is empty; ") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	f.wantCalls()
}

func TestRunAndExecKeep125ForCapsemItself(t *testing.T) {
	f := newService(t)
	for _, line := range []string{
		"run", "exec dev", "run --tyt x", "run --timeout soon x", "run --ram 99 x", "exec dev -e A", "exec dev -e LD_PRELOAD=x true", "exec dev -w",
	} {
		if r := f.capsem(nil, strings.Fields(line)...); r.code != fault.ExitCapsem || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
			t.Errorf("%s: %+v", line, r)
		}
	}
	f.wantCalls()
}
