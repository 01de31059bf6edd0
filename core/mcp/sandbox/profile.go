package sandbox

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Kind is what a process of ours is left with.
type Kind int

// The kinds.
const (
	// NetworkOnly leaves TCP over IP, Nothing the descriptors it has.
	NetworkOnly Kind = iota
	Nothing
)

// systemOfMac are the paths that programs read on macOS to run at all.
var systemOfMac = []string{
	"/usr/lib", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/libexec", "/usr/share", "/usr/local", "/opt/homebrew", "/opt/local", "/System", "/Library/Apple",
	"/Library/Developer/CommandLineTools", "/Library/Frameworks", "/Applications/Xcode.app", "/private/etc/ssl", "/private/etc/hosts", "/private/etc/resolv.conf",
	"/private/etc/services", "/private/etc/protocols", "/private/etc/passwd", "/private/etc/group", "/private/etc/localtime", "/private/var/db/timezone",
	"/private/var/db/dyld", "/private/var/select",
}

// trustOfMac is read, and asked for over Mach, where certificates are to be checked.
var trustOfMac = []string{"/Library/Keychains", "/private/var/db/mds", "/Library/Security/Trust Settings"}

// profile is a text in the language of sandbox-exec, and the parameters that it takes. Paths are parameters, so that none is ever read as
// part of the language. What no rule speaks of is denied, and a program cannot leave what it was started in, nor can what it starts.
type profile struct {
	text   strings.Builder
	params []string
	// seen are the names of paths that are parameters already.
	seen map[string]string
}

func newProfile() *profile {
	p := &profile{seen: map[string]string{}}
	p.add("(version 1)", "(deny default)", `(import "system.sb")`, "(allow sysctl-read)", "(allow process-info* (target same-sandbox))",
		"(allow signal (target same-sandbox))")
	return p
}

func (p *profile) add(rules ...string) {
	for _, r := range rules {
		p.text.WriteString(r + "\n")
	}
}

// param is a path as the language refers to it.
func (p *profile) param(path string) string {
	name, there := p.seen[path]
	if !there {
		name = fmt.Sprintf("P%d", len(p.seen))
		p.seen[path] = name
		p.params = append(p.params, name+"="+path)
	}
	return `(param "` + name + `")`
}

// allow lets operations act on paths and all beneath them, and has the directories above be seen, but not what is in those.
func (p *profile) allow(operations string, paths ...string) {
	for _, path := range paths {
		p.add("(allow " + operations + " (subpath " + p.param(path) + "))")
		for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
			p.add("(allow file-read-metadata (literal " + p.param(dir) + "))")
			if dir == "/" || dir == "." {
				break
			}
		}
	}
}

// tcp lets connections to the network be opened. Sockets that have names in the file system stay closed, capsem's among them.
func (p *profile) tcp() {
	p.add(`(allow network-outbound (remote tcp "*:*"))`,
		`(allow mach-lookup (global-name "com.apple.trustd") (global-name "com.apple.trustd.agent") (global-name "com.apple.SecurityServer"))`)
	p.allow("file-read*", trustOfMac...)
}

// profileOf is that of a process of ours, whose binary is exe.
func profileOf(kind Kind, exe string) *profile {
	p := newProfile()
	p.allow("file-read* process-exec", exe)
	if kind == NetworkOnly {
		p.tcp()
	}
	return p
}

// profileFor is that of a program of the owner's. resolve gives the paths that a path leads to, itself too.
func profileFor(program *Program, resolve func(path string) []string) *profile {
	p := newProfile()
	p.add("(allow process-fork)", "(allow ipc-posix-sem)", `(allow file-read* file-write-data (literal "/dev/null") (literal "/dev/zero"))`,
		`(allow file-read* (literal "/dev/random") (literal "/dev/urandom"))`)
	p.allow("file-read* process-exec", systemOfMac...)
	for _, path := range append([]string{program.Path}, program.Read...) {
		p.allow("file-read* process-exec", resolve(path)...)
	}
	for _, path := range append([]string{program.Dir}, program.Write...) {
		p.allow("file-read* file-write* process-exec", resolve(path)...)
	}
	if program.Network {
		p.tcp()
		p.add(`(allow network-outbound (remote udp "*:*"))`, `(allow network-outbound (literal "/private/var/run/mDNSResponder"))`,
			`(allow mach-lookup (global-name "com.apple.SystemConfiguration.configd") (global-name "com.apple.dnssd.service"))`)
	}
	return p
}

// command is how a program is started under the profile.
func (p *profile) command(program string, args ...string) []string {
	out := []string{macSandbox, "-p", p.text.String()}
	for _, param := range p.params {
		out = append(out, "-D", param)
	}
	return append(append(out, "--", program), args...)
}

// macSandbox is what starts programs under a profile.
const macSandbox = "/usr/bin/sandbox-exec"
